//! The images of a boot: that of a medium, or a kernel and its initrd, each a file on a web server.

use crate::config::{Access, Boot, Wanted};
use crate::formats::url::Url;
use crate::source::fault::{Fault, Refusal, SourceError};
use crate::source::image::Image;
use crate::source::mirrors::Patience;
use crate::source::wire::Traffic;
use ureq::http::StatusCode;

/// Names of a kernel in a directory for network boots, and of its initrd, the usual ones first.
const KERNELS: [&str; 3] = ["linux", "vmlinuz", "bzImage"];
const INITRDS: [&str; 4] = ["initrd.gz", "initrd.img", "initrd", "initramfs.img"];

/// The images of one boot.
pub struct Images {
    /// The medium's, or a kernel.
    first: Image,
    initrd: Option<Image>,
}

impl Images {
    /// Open what `boot` names.
    pub fn open(boot: &Boot, access: &Access, patience: Patience) -> Result<Self, SourceError> {
        let file = |url: &Url| Image::open(&Wanted::at(url.clone()), access, patience);
        match boot {
            Boot::Medium(wanted) => Ok(Self { first: Image::open(wanted, access, patience)?, initrd: None }),
            Boot::Files { kernel, initrd } => Ok(Self { first: file(kernel)?, initrd: Some(file(initrd)?) }),
            Boot::Directory(url) => Ok(Self {
                first: one_of(url, "kernel", &KERNELS, &file)?,
                initrd: Some(one_of(url, "initrd", &INITRDS, &file)?),
            }),
        }
    }

    /// The medium's image, or the kernel's.
    pub fn first(&self) -> &Image {
        &self.first
    }

    /// The initrd's, where the first is a kernel's.
    pub fn initrd(&self) -> Option<&Image> {
        self.initrd.as_ref()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Image> {
        [Some(&self.first), self.initrd.as_ref()].into_iter().flatten()
    }

    /// Bytes and requests that they have cost so far.
    pub fn traffic(&self) -> Traffic {
        let each = self.iter().map(Image::traffic);
        each.fold(Traffic::default(), |all, one| Traffic {
            bytes: all.bytes + one.bytes,
            requests: all.requests + one.requests,
        })
    }
}

/// The first of `names` that is in the directory.
fn one_of(
    dir: &Url,
    what: &'static str,
    names: &[&str],
    open: &dyn Fn(&Url) -> Result<Image, SourceError>,
) -> Result<Image, SourceError> {
    for url in names.iter().filter_map(|name| dir.join(name)) {
        match open(&url) {
            Err(SourceError::Request {
                fault: Fault::Refusal(Refusal::Status(StatusCode::NOT_FOUND)),
                ..
            }) => {}
            opened => return opened,
        }
    }
    Err(SourceError::NotThere { dir: dir.to_string(), what, names: names.join(", ") })
}
