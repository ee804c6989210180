//! `inetbootctl predict`: makes the event log that a boot will leave, without booting. It runs the boot's own steps
//! on the same inputs.

use crate::config::{Boot, Config};
use crate::desk::log;
use crate::desk::subject::Subject;
use crate::formats::bank::Bank;
use crate::formats::cmdline;
use crate::formats::eventlog::{Event, EventLog};
use crate::formats::statement::Statement;
use crate::machine::drivers::Device;
use crate::machine::ledger::Evidence;
use crate::measure::{Agent, of_recipe, of_serving};
use crate::miniroot::overlay::Contents;
use crate::miniroot::{self, Hardware, Rebuilt};
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};

/// The inputs of a boot.
#[derive(Debug)]
pub struct Inputs {
    /// Our initramfs, which holds the agent.
    pub initramfs: PathBuf,
    /// The kernel arguments of the boot; they name the image.
    pub arguments: String,
    /// A log of the same machine, for the events of its firmware and boot loader.
    pub after: Option<PathBuf>,
    /// Aliases, as in sysfs, of devices whose drivers the target's initrd may lack.
    pub devices: Vec<String>,
}

/// Makes the log that the boot from `inputs` will leave.
pub fn predict(inputs: &Inputs) -> anyhow::Result<EventLog> {
    let config =
        Config::parse(&cmdline::words(&inputs.arguments)).context("the kernel arguments cannot be used")?;
    let Boot::Medium(wanted) = &config.boot else {
        bail!("only boots of images can be predicted so far, not of {}", config.boot.name())
    };
    let Subject { agent, image, iso, plan } = Subject::open(&inputs.initramfs, &config, wanted)?;
    let agent = Agent::of(agent);
    let recipe = image.recipe();
    if let Some(hypervisor) = &plan.hypervisor {
        iso.fetch(Path::new(&hypervisor.path))?;
    }
    iso.fetch(&plan.kernel)?;
    for initrd in &plan.initrds {
        iso.fetch(initrd)?;
    }
    let contents =
        Contents { agent: agent.bytes(), ca: image.ca(), recipe: &recipe, modules: config.net.modules() };
    let Rebuilt { payload, .. } =
        miniroot::rebuild(&plan, &iso, &hardware(&inputs.devices), &contents, None)?;

    let mut log = before(inputs)?;
    let mut statements = Vec::new();
    for evidence in [&agent as &dyn Evidence, &config] {
        statements.extend(evidence.statements());
    }
    statements.extend(of_recipe(&recipe));
    statements.extend(payload.statements());
    statements.push(of_serving(&recipe));
    statements.push(Statement::of_ledger(None));
    let banks = log.banks();
    statements.iter().for_each(|statement| log.push(statement.event(&banks)));
    Ok(log)
}

/// The events before InetBoot's.
fn before(inputs: &Inputs) -> anyhow::Result<EventLog> {
    let Some(path) = &inputs.after else { return Ok(EventLog::agile(&Bank::ALL)) };
    let whole = log::read(path)?;
    let is_ours = |event: &Event| Statement::of_event(event).is_some();
    let length = whole.events().iter().position(is_ours).unwrap_or(whole.events().len());
    Ok(whole.first(length))
}

/// The devices that the target has to drive.
fn hardware(devices: &[String]) -> Vec<Hardware> {
    let device = |alias: &String| Hardware {
        kind: "device",
        name: format!("--device {alias}"),
        chain: vec![Device { modalias: alias.clone(), driver: None, module: None }],
        is_optional: false,
    };
    devices.iter().map(device).collect()
}
