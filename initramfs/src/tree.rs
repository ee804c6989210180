//! The modules of a stock kernel, as members of the archive.

use crate::list::{Item, Kind};
use anyhow::Context;
use inetboot::desk::drivers;
use std::fs;
use std::path::Path;

/// The modules below `dir` (…/lib/modules/RELEASE) that a network boot may need, and depmod's files for them.
pub fn pruned(dir: &Path) -> anyhow::Result<Vec<Item>> {
    let release =
        dir.file_name().and_then(|name| name.to_str()).context("the module directory has no name")?;
    let files = drivers::pruned(drivers::LIST, &|name| fs::read(dir.join(name)))
        .with_context(|| format!("taking modules from {}", dir.display()))?;
    let item = |(name, contents): (String, Vec<u8>)| Item {
        part: part(&name),
        name: format!("lib/modules/{release}/{name}"),
        mode: 0o644,
        kind: Kind::File(contents),
    };
    Ok(files.into_iter().map(item).collect())
}

/// The row that counts a file: `kernel/drivers/net/ethernet/intel/e1000/e1000.ko` is in that of `drivers/net`.
fn part(path: &str) -> String {
    let mut parts = path.split('/').skip(1);
    match (parts.next(), parts.next()) {
        (Some(first), Some(second)) => format!("modules: {first}/{second}"),
        _ => "module index".into(),
    }
}
