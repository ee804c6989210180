//! Xen, for any family: finds the hypervisor on media whose menu does not start it, and divides the
//! arguments between the hypervisor and its dom0. Arguments: Xen's `docs/misc/xen-command-line`.

use crate::distro::find::find_first;
use crate::distro::{DistroError, Origin};
use crate::formats::boot_menu::Program;
use std::path::Path;

/// The usual places of hypervisors: beside the kernel, as kiwi does it, and where media keep their kernels.
const HYPERVISORS: [&str; 6] = [
    "boot/*/loader/xen*.gz",
    "images/pxeboot/xen*.gz",
    "isolinux/xen*.gz",
    "live/xen*.gz",
    "boot/xen*.gz",
    "xen*.gz",
];

/// The hypervisor of a medium whose menu names none.
pub(super) fn find_hypervisor(dir: &Path) -> Result<Program, DistroError> {
    match find_first(dir, &HYPERVISORS)? {
        Some(path) => Ok(Program { path: path.to_string_lossy().into_owned(), words: Vec::new() }),
        None => Err(DistroError::Missing {
            what: "hypervisor",
            path: HYPERVISORS.join(" or "),
            origin: Origin::Xen,
        }),
    }
}

/// Divides the arguments between the hypervisor and dom0: the menu's are there already, and `users` are the
/// hypervisor's.
///
/// Xen drives the serial line. What was Linux' console there, `console=ttyS0`, becomes `com1=… console=com1`
/// for Xen and `console=hvc0` for dom0. Xen also gets `no-real-mode`, since after kexec there is no BIOS to
/// call.
pub(super) fn divide_words(hypervisor: &mut Vec<String>, dom0: &mut [String], users: &[String]) {
    let mut consoles = Vec::new();
    for word in dom0.iter_mut() {
        let Some(line) = word.strip_prefix("console=ttyS") else { continue };
        let (number, mode) = line.split_once(',').unwrap_or((line, "115200"));
        // Xen has com1 and com2.
        let Ok(number @ 0..=1) = number.parse::<u8>() else { continue };

        let com = format!("com{}", number + 1);
        let baud: String = mode.chars().take_while(char::is_ascii_digit).collect();
        hypervisor.push(format!("{com}={baud},8n1"));
        consoles.push(com);
        *word = "console=hvc0".into();
    }

    // Xen takes the last console=. Where we have none to set, the menu's own must stay the last.
    if !consoles.is_empty() {
        hypervisor.push(format!("console=vga,{}", consoles.join(",")));
    }
    hypervisor.push("no-real-mode".into());
    hypervisor.extend_from_slice(users);
}

/// The most that Xen takes for itself if no argument gives dom0's share. It takes a sixteenth, up to this.
const XENS_SHARE: u64 = 128 << 20;

/// Bytes of memory for dom0 in a machine with `total` bytes: the last `dom0_mem=` of `words`, or else all
/// that Xen does not take.
pub fn dom0_memory(words: &[String], total: u64) -> u64 {
    let rest = total - (total / 16).min(XENS_SHARE);
    let dom0_mem = words.iter().rev().find_map(|word| word.strip_prefix("dom0_mem="));

    // The value may hold an amount, a lower and an upper limit. The amount counts, or else the upper limit.
    let parts = dom0_mem.unwrap_or_default().split(',');
    let mut amounts: Vec<&str> = parts.filter(|part| !part.starts_with("min:")).collect();
    amounts.sort_by_key(|part| part.starts_with("max:"));
    let amount = amounts.first().and_then(|part| parse_size(part.trim_start_matches("max:")));
    amount.map_or(rest, |amount| amount.min(rest))
}

/// Bytes in a size such as `512M`. Without a unit it is in KiB. Fractions, and amounts to leave for Xen, are
/// not read.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "k" => 10,
        "b" => 0,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// dom0 gets the last amount that its arguments name, and never more than Xen leaves.
    #[test]
    fn memory_of_dom0() {
        let gib = 1 << 30;
        let dom0 =
            |words: &str| dom0_memory(&words.split(' ').map(str::to_owned).collect::<Vec<_>>(), 4 * gib);
        assert_eq!(dom0("loglvl=all"), 4 * gib - XENS_SHARE);
        assert_eq!(dom0("dom0_mem=1G dom0_mem=512M,max:2G"), gib / 2);
        assert_eq!(dom0("dom0_mem=min:64M,max:1G"), gib);
        assert_eq!(dom0("dom0_mem=1048576"), gib);
        assert_eq!(dom0("dom0_mem=900G"), 4 * gib - XENS_SHARE);
        assert_eq!(dom0("dom0_mem=-1G"), 4 * gib - XENS_SHARE);
    }

    /// The hypervisor gets the serial line that the menu gave to Linux, and keeps one that the menu gave to it.
    #[test]
    fn serial_console() {
        let mut xen = vec!["dom0_mem=1G".to_owned()];
        let mut dom0 = ["quiet", "console=ttyS1,9600n8", "console=tty0"].map(str::to_owned);
        divide_words(&mut xen, &mut dom0, &["smap=0".to_owned()]);
        assert_eq!(xen, ["dom0_mem=1G", "com2=9600,8n1", "console=vga,com2", "no-real-mode", "smap=0"]);
        assert_eq!(dom0, ["quiet", "console=hvc0", "console=tty0"]);

        let mut xen = vec!["com1=115200,8n1".to_owned(), "console=com1".to_owned()];
        divide_words(&mut xen, &mut ["console=hvc0".to_owned()], &[]);
        assert_eq!(xen, ["com1=115200,8n1", "console=com1", "no-real-mode"]);
    }
}
