//! Xen, a mode on top of any family: the hypervisor that is on the medium, for media whose menu
//! does not start it. Its arguments: Xen's `docs/misc/xen-command-line`.

use crate::distro::DistroError;
use crate::distro::find::first;
use crate::formats::boot_menu::Program;
use std::path::Path;

/// Where hypervisors lie on media: beside the kernel (kiwi), or where a menu of one's own has them.
const PLACES: [&str; 6] = [
    "boot/*/loader/xen*.gz",
    "images/pxeboot/xen*.gz",
    "isolinux/xen*.gz",
    "live/xen*.gz",
    "boot/xen*.gz",
    "xen*.gz",
];

/// The hypervisor of a medium whose menu has none.
pub(super) fn find_in(dir: &Path) -> Result<Program, DistroError> {
    match first(dir, &PLACES)? {
        Some(path) => Ok(Program { path: path.to_string_lossy().into_owned(), words: Vec::new() }),
        None => Err(DistroError::Missing {
            what: "hypervisor",
            path: PLACES.join(" or "),
            says: "bootxen=1 needs it".into(),
        }),
    }
}

/// The hypervisor's arguments and dom0's, from what the menu says and what the user added.
///
/// The serial line is the hypervisor's: what was to be Linux' console there, `console=ttyS0`, is
/// `com1=… console=com1` for it and `console=hvc0` for dom0. `no-real-mode`, for there is no
/// firmware any more that would answer.
pub(super) fn share(hypervisor: &mut Vec<String>, dom0: &mut [String], user: &[String]) {
    let mut lines = Vec::new();
    for word in dom0.iter_mut() {
        let Some(line) = word.strip_prefix("console=ttyS") else { continue };
        let (number, mode) = line.split_once(',').unwrap_or((line, "115200"));
        let Ok(number @ 0..=1) = number.parse::<u8>() else { continue };
        let com = format!("com{}", number + 1);
        let baud: String = mode.chars().take_while(char::is_ascii_digit).collect();
        hypervisor.push(format!("{com}={baud},8n1"));
        lines.push(com);
        *word = "console=hvc0".into();
    }
    // The last one counts, so that the menu's own has to stay it where there is nothing to add.
    if !lines.is_empty() {
        hypervisor.push(format!("console=vga,{}", lines.join(",")));
    }
    hypervisor.push("no-real-mode".into());
    hypervisor.extend_from_slice(user);
}

/// What Xen keeps for itself where it is not told how much dom0 gets: a sixteenth, within this.
const KEPT: u64 = 128 << 20;

/// How much memory dom0 gets of a machine with `total`: what the last `dom0_mem=` of `words` says, or
/// else all that Xen does not keep.
pub fn dom0_memory(words: &[String], total: u64) -> u64 {
    let rest = total - (total / 16).min(KEPT);
    let said = words.iter().rev().find_map(|word| word.strip_prefix("dom0_mem="));
    // Of amounts, lower and upper limits the plain amount counts, then the upper limit.
    let parts = said.unwrap_or_default().split(',');
    let mut amounts: Vec<&str> = parts.filter(|part| !part.starts_with("min:")).collect();
    amounts.sort_by_key(|part| part.starts_with("max:"));
    let amount = amounts.first().and_then(|part| amount(part.trim_start_matches("max:")));
    amount.map_or(rest, |amount| amount.min(rest))
}

/// `512M`; without a unit Xen takes KiB. What it understands beside this (fractions, what to leave
/// over) is not counted.
fn amount(text: &str) -> Option<u64> {
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

    #[test]
    fn dom0s_memory_is_what_it_is_given() {
        let gib = 1 << 30;
        let dom0 =
            |words: &str| dom0_memory(&words.split(' ').map(str::to_owned).collect::<Vec<_>>(), 4 * gib);
        assert_eq!(dom0("loglvl=all"), 4 * gib - KEPT);
        assert_eq!(dom0("dom0_mem=1G dom0_mem=512M,max:2G"), gib / 2);
        assert_eq!(dom0("dom0_mem=min:64M,max:1G"), gib);
        assert_eq!(dom0("dom0_mem=1048576"), gib);
        assert_eq!(dom0("dom0_mem=900G"), 4 * gib - KEPT);
        assert_eq!(dom0("dom0_mem=-1G"), 4 * gib - KEPT);
    }

    #[test]
    fn the_serial_line_goes_to_the_hypervisor() {
        let mut xen = vec!["dom0_mem=1G".to_owned()];
        let mut dom0 = ["quiet", "console=ttyS1,9600n8", "console=tty0"].map(str::to_owned);
        share(&mut xen, &mut dom0, &["smap=0".to_owned()]);
        assert_eq!(xen, ["dom0_mem=1G", "com2=9600,8n1", "console=vga,com2", "no-real-mode", "smap=0"]);
        assert_eq!(dom0, ["quiet", "console=hvc0", "console=tty0"]);

        let mut xen = vec!["com1=115200,8n1".to_owned(), "console=com1".to_owned()];
        share(&mut xen, &mut ["console=hvc0".to_owned()], &[]);
        assert_eq!(xen, ["com1=115200,8n1", "console=com1", "no-real-mode"]);
    }
}
