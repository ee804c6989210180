//! The reason behind "Input/output error". The kernel reports nothing else for an unreadable file on the
//! medium. The source behind the medium knows the reason: a server is gone, or sent wrong bytes.

use crate::base::failure::{Explain, chain};
use std::error::Error;
use std::{fmt, io};

/// An error of a step that read the medium's files, with the source's reason.
#[derive(Debug)]
pub struct Blamed<E> {
    error: Box<E>,
    reason: Option<String>,
}

impl<E: Explain> Blamed<E> {
    /// `reason` counts where the kernel's own word is EIO, and nowhere else: a source that recovered long
    /// ago is not to blame for a file that is missing.
    pub fn new(error: E, reason: &Option<String>) -> Self {
        let reason = reason.clone().filter(|_| is_eio(&error));
        Self { error: Box::new(error), reason }
    }
}

fn is_eio(error: &(dyn Error + 'static)) -> bool {
    let is_eio = |error: &io::Error| error.raw_os_error() == Some(libc::EIO);
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref().is_some_and(is_eio) {
            return true;
        }
        next = error.source();
    }
    false
}

impl<E: Explain> fmt::Display for Blamed<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&chain(&*self.error))?;
        self.reason.iter().try_for_each(|reason| write!(f, " ({reason})"))
    }
}

/// Its causes are in its text already.
impl<E: Explain> Error for Blamed<E> {}

impl<E: Explain> Explain for Blamed<E> {
    fn hint(&self) -> String {
        self.error.hint()
    }

    fn may_heal(&self) -> bool {
        self.error.may_heal()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read /live")]
    struct Unreadable(#[source] io::Error);

    impl Explain for Unreadable {
        fn hint(&self) -> String {
            String::new()
        }
    }

    /// The server's reason stands behind EIO, and behind no other error.
    #[test]
    fn eio_gets_its_reason() {
        let reason = Some("the server said 502".to_owned());
        let said = |errno| {
            let error = Unreadable(io::Error::from_raw_os_error(errno));
            Blamed::new(error, &reason).to_string()
        };
        assert!(said(libc::EIO).starts_with("cannot read /live: Input/output error"), "{}", said(libc::EIO));
        assert!(said(libc::EIO).ends_with("(the server said 502)"), "{}", said(libc::EIO));
        assert!(!said(libc::ENOENT).contains("502"), "{}", said(libc::ENOENT));
    }
}
