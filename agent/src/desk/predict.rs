//! `inetbootctl predict`: the event log of a boot that has not happened, from what it will be made
//! of; by the same rooms that will make it.

use super::iso::Iso;
use super::log;
use crate::config::{Access, Boot, Config};
use crate::distro;
use crate::early::Device;
use crate::measure::Agent;
use crate::measure::bank::Bank;
use crate::measure::eventlog::{Event, EventLog};
use crate::measure::evidence::{Evidence, Statement, of_ledger, of_recipe, of_serving};
use crate::medium::Cd;
use crate::miniroot::{self, Luggage, Part, newc};
use crate::source::Image;
use crate::source::mirrors::Patience;
use anyhow::{Context, bail, ensure};
use std::fs::File;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a server may be gone.
const PATIENCE: Patience = Patience::Bounded(Duration::from_secs(60));

/// What a boot is made of.
#[derive(Debug)]
pub struct Inputs {
    /// Our initramfs, which holds the agent.
    pub initramfs: PathBuf,
    /// The kernel arguments of the first life; they say which image.
    pub arguments: String,
    /// A log of the same machine, for what its firmware and boot loader measure before.
    pub after: Option<PathBuf>,
    /// Aliases of the devices that the target has to drive, as in sysfs.
    pub devices: Vec<String>,
}

/// The log that the boot from `inputs` will leave.
pub fn predict(inputs: &Inputs) -> anyhow::Result<EventLog> {
    let config = Config::parse(&inputs.arguments).context("the kernel arguments cannot be used")?;
    let wanted_ca = config.access.ca.as_deref();
    let (agent, ca) = unpack(&inputs.initramfs, wanted_ca)?;
    let agent = Agent::of(agent);
    let ca = kept(ca.as_deref())?;

    // The disk that keeps pieces is the other machine's.
    let access =
        Access { ca: ca.as_ref().map(|file| file.path().to_owned()), disk: None, ..config.access.clone() };
    let Boot::Medium(wanted) = &config.boot else {
        bail!("only boots of images can be predicted so far, not of {}", config.boot.name())
    };
    let image = Image::open(wanted, &access, PATIENCE)?;
    let recipe = image.recipe();
    let iso = Iso::open(image.source())?;
    let plan = distro::recognise(iso.dir(), &config.target)?;
    if let Some(hypervisor) = &plan.hypervisor {
        iso.fetch(Path::new(&hypervisor.path))?;
    }
    iso.fetch(&plan.kernel)?;
    for initrd in &plan.initrds {
        iso.fetch(initrd)?;
    }
    let luggage =
        Luggage { agent: agent.bytes(), ca: image.ca(), recipe: &recipe, modules: config.net.modules() };
    let (payload, _) = miniroot::rebuild(&plan, &iso, &hardware(&inputs.devices), &luggage, None)?;

    let mut log = before(inputs)?;
    let mut statements = Vec::new();
    for evidence in [&agent as &dyn Evidence, &config] {
        statements.extend(evidence.statements()?);
    }
    statements.extend(of_recipe(&recipe)?);
    statements.extend(payload.statements()?);
    statements.push(of_serving(&recipe));
    statements.push(of_ledger(None));
    let banks = log.banks();
    statements.iter().for_each(|statement| log.push(statement.event(&banks)));
    Ok(log)
}

/// The certificates, where there are any, in a file.
pub(super) fn kept(pem: Option<&[u8]>) -> anyhow::Result<Option<tempfile::NamedTempFile>> {
    let keep = |pem: &[u8]| -> anyhow::Result<_> {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(pem)?;
        Ok(file)
    };
    pem.map(keep).transpose().context("keeping the certificates")
}

/// The part of a log that was written before us.
fn before(inputs: &Inputs) -> anyhow::Result<EventLog> {
    let Some(path) = &inputs.after else { return Ok(EventLog::agile(&Bank::ALL)) };
    let whole = log::read(path)?;
    let is_ours = |event: &Event| Statement::of_event(event).is_some();
    let length = whole.events().iter().position(is_ours).unwrap_or(whole.events().len());
    Ok(whole.first(length))
}

/// The agent in our initramfs, and the file `ca` where one is wanted.
pub(super) fn unpack(initramfs: &Path, ca: Option<&Path>) -> anyhow::Result<(Vec<u8>, Option<Vec<u8>>)> {
    let what = || format!("reading {}", initramfs.display());
    let ca = ca.map(|path| path.strip_prefix("/").unwrap_or(path));
    let (mut agent, mut pem) = (None, None);
    let mut input = BufReader::new(File::open(initramfs).with_context(what)?);
    newc::walk(&mut input, &mut |member| {
        let mut contents = Vec::new();
        if member.name == "init" {
            member.contents.read_to_end(&mut contents)?;
            agent = Some(contents);
        } else if ca.is_some_and(|ca| ca == Path::new(member.name)) {
            member.contents.read_to_end(&mut contents)?;
            pem = Some(contents);
        }
        Ok(())
    })
    .with_context(what)?;
    if let Some(ca) = ca {
        ensure!(
            pem.is_some(),
            "{} has no file {}, which inetboot.ca= names",
            initramfs.display(),
            ca.display()
        );
    }
    Ok((agent.with_context(|| format!("{} has no /init", initramfs.display()))?, pem))
}

/// What the target has to drive, where its own initrd may not.
fn hardware(devices: &[String]) -> Vec<Part> {
    let part = |alias: &String| Part {
        kind: "device",
        name: format!("--device {alias}"),
        chain: vec![Device { modalias: alias.clone(), driver: None, module: None }],
        is_help: false,
    };
    devices.iter().map(part).collect()
}
