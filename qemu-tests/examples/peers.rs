//! Measures the reads of a boot over a line with latency, with our mount and with the tools that Debian has
//! for the same, all in one run; each figure is the median of several. `scripts/bench` runs it, as root (it
//! drops the page cache).
#![allow(clippy::print_stdout, clippy::expect_used, clippy::panic)] // a program for the desk

use qemu_tests::repository::{built, inetbootctl, repository, text};
use qemu_tests::web::{Content, Server};
use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 3;

/// The bound of one run.
const LIMIT: Duration = Duration::from_secs(120);

const BLOCK: u64 = 256 * 1024;

/// The tools: name, command that mounts, and the file that then appears. `{url}` is the server's URL, `{mnt}`
/// an empty directory, `{work}` another one.
const TOOLS: [(&str, &str, &str); 8] = [
    ("inetboot", "{ctl} mount {url}x.iso {mnt} --record {work}/profile", "{mnt}/x.iso"),
    ("inetboot, verified", "{ctl} mount {url}x.iso.idx {mnt}", "{mnt}/x.iso"),
    ("inetboot, verified, profile", "{ctl} mount {url}x.iso.idx {mnt} --profile {url}profile", "{mnt}/x.iso"),
    ("httpfs2", "httpfs2 -f {url}x.iso {mnt}", "{mnt}/x.iso"),
    ("httpdirfs", "httpdirfs -f --cache-location {work}/cache {url} {mnt}", "{mnt}/x.iso"),
    ("rclone mount", "rclone mount --read-only :http: --http-url {url} {mnt}", "{mnt}/x.iso"),
    (
        "nbdkit curl",
        "nbdkit -f -r -U {work}/s curl {url}x.iso & sleep 0.5; exec nbdfuse -r {mnt} nbd+unix:///?socket={work}/s",
        "{mnt}/nbd",
    ),
    (
        "nbdkit curl, readahead, cache",
        "nbdkit -f -r -U {work}/s --filter=blocksize --filter=readahead --filter=cache curl {url}x.iso cache-on-read=true cache-min-block-size=256K & sleep 0.5; exec nbdfuse -r {mnt} nbd+unix:///?socket={work}/s",
        "{mnt}/nbd",
    ),
];

const WHOLE_FILE: &str = "curl, the whole file";

type Reads = Vec<(u64, usize)>;

/// A running tool, which ends with all that it started when this is dropped; and its mount point.
struct Mounted<'a>(Child, &'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(self.1).stderr(Stdio::null()).status();
        let group = nix::unistd::Pid::from_raw(self.0.id() as i32);
        // Our tool writes its profile before it ends.
        for signal in [nix::sys::signal::SIGINT, nix::sys::signal::SIGKILL] {
            let _ = nix::sys::signal::killpg(group, signal);
            std::thread::sleep(Duration::from_millis(500));
        }
        let _ = self.0.wait();
    }
}

/// Seconds, bytes and requests of `reads` by one tool; `None` if it did not finish.
fn measure(
    tool: (&str, &str, &str),
    server: &Server,
    work: &Path,
    reads: &Reads,
) -> Option<(f64, u64, usize)> {
    let (_, command, file) = tool;
    let mnt = work.join("mnt");
    fs::create_dir_all(&mnt).expect("making the mount point");
    let _ = fs::remove_file(work.join("s"));
    let _ = fs::remove_dir_all(work.join("cache"));
    let fill = |text: &str| {
        text.replace("{ctl}", &built("inetbootctl").to_string_lossy())
            .replace("{url}", &server.url("/"))
            .replace("{mnt}", &mnt.to_string_lossy())
            .replace("{work}", &work.to_string_lossy())
    };
    fs::write("/proc/sys/vm/drop_caches", "3").expect("dropping the page cache (needs root)");

    let mut shell = Command::new("timeout");
    shell.arg(LIMIT.as_secs().to_string()).args(["sh", "-c", &fill(command)]);
    shell.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    let _mounted = Mounted(shell.spawn().expect("starting a tool"), &mnt);
    let deadline = Instant::now() + Duration::from_secs(20);
    let file = loop {
        match File::open(fill(file)) {
            Ok(file) => break file,
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(50)),
            Err(_) => return None,
        }
    };

    let (bytes, requests) = (server.bytes_sent(), server.log().len());
    let start = Instant::now();
    for (offset, length) in reads {
        // At the limit the tool is ended, and this read fails.
        file.read_exact_at(&mut vec![0; *length], *offset).ok()?;
    }
    let seconds = start.elapsed().as_secs_f64();
    Some((seconds, server.bytes_sent() - bytes, server.log().len() - requests))
}

/// Seconds, bytes and requests of the usual way: to download all of it first.
fn whole_file(server: &Server) -> Option<(f64, u64, usize)> {
    let (bytes, requests) = (server.bytes_sent(), server.log().len());
    let start = Instant::now();
    let limit = LIMIT.as_secs().to_string();
    let curl = ["--silent", "--fail", "--max-time", &limit, "--output", "/dev/null", &server.url("/x.iso")];
    Command::new("curl").args(curl).status().ok().filter(ExitStatus::success)?;
    Some((start.elapsed().as_secs_f64(), server.bytes_sent() - bytes, server.log().len() - requests))
}

fn trace(length: u64) -> Reads {
    let text = fs::read_to_string(repository().join("agent/benches/debian-boot.trace")).expect("the trace");
    let read = |line: &str| {
        let (offset, length) = line.split_once(' ')?;
        Some((offset.parse().ok()?, length.parse().ok()?))
    };
    let reads: Reads = text.lines().filter_map(read).collect();
    assert!(reads.iter().all(|(offset, size)| offset + *size as u64 <= length), "the image is too small");
    reads
}

/// Prints the median of several runs, unless one of them did not finish.
fn row(name: &str, wire: f64, run: impl Fn() -> Option<(f64, u64, usize)>) {
    let runs: Option<Vec<_>> = (0..ROUNDS).map(|_| run()).collect();
    let Some(mut runs) = runs else {
        println!("{name:<32} not within {} s", LIMIT.as_secs());
        return;
    };
    runs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (seconds, bytes, requests) = runs[ROUNDS / 2];
    let (megabytes, ratio) = (bytes as f64 / 1e6, seconds / wire);
    println!("{name:<32} {seconds:>8.2} {megabytes:>8.1} {requests:>9} {ratio:>9.2}");
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [iso, round_trip, megabits, only @ ..] = arguments.as_slice() else {
        println!(
            "usage: peers ISO ROUND_TRIP_MS MEGABITS [WORKLOAD [TOOL]]: only those whose names begin so"
        );
        return;
    };
    let is_wanted = |place: usize, name: &str| only.get(place).is_none_or(|start| name.starts_with(start));
    let number = |text: &str| text.parse::<u64>().unwrap_or_else(|_| panic!("{text} is no number"));
    let (round_trip, megabits) = (number(round_trip), number(megabits));

    let iso = fs::canonicalize(iso).expect("the image");
    let length = fs::metadata(&iso).expect("the image").len();
    let work = tempfile::tempdir().expect("a directory");
    let index = make_index(&iso, work.path());
    let profile = work.path().join("profile");
    fs::write(&profile, "").expect("making room for the profile");
    let server = Server::builder()
        .line(Duration::from_millis(round_trip), megabits)
        .file("/x.iso", Content::File(iso.clone()))
        .file("/x.iso.idx", Content::File(index))
        .file("/profile", Content::File(profile))
        .start()
        .expect("a server");

    for (what, reads) in workloads(length) {
        if is_wanted(0, what) {
            compare(what, &reads, (round_trip, megabits), &server, work.path(), &|name| is_wanted(1, name));
        }
    }
}

/// The index of `iso` in `work`, where the image has the name that it has on the server.
fn make_index(iso: &Path, work: &Path) -> PathBuf {
    let index = work.join("x.iso.idx");
    inetbootctl(work, &["image", "index", &text(iso), "--out", &text(&index)]);

    let made = fs::read(&index).expect("the index");
    let old = format!("image {}\n", text(iso));
    let at = made.windows(old.len()).position(|window| window == old.as_bytes()).expect("it names the image");
    let renamed = [&made[..at], b"image x.iso\n", &made[at + old.len()..]].concat();
    fs::write(&index, renamed).expect("writing the index");
    index
}

/// The reads to compare, for an image of this length.
fn workloads(length: u64) -> [(&'static str, Reads); 3] {
    let sequential: Reads =
        (0..length).step_by(1 << 20).map(|at| (at, (1 << 20).min(length - at) as usize)).collect();
    let random =
        (1..=100_u64).map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % (length / 4096 - 1) * 4096, 4096));
    [("boot trace", trace(length)), ("random 4 KiB", random.collect()), ("sequential", sequential)]
}

/// Prints a table: a row for each tool that `is_wanted`, over a line of so many milliseconds and Mbit/s.
fn compare(
    what: &str,
    reads: &Reads,
    (round_trip, megabits): (u64, u64),
    server: &Server,
    work: &Path,
    is_wanted: &dyn Fn(&str) -> bool,
) {
    let touched: HashSet<u64> =
        reads.iter().flat_map(|(at, size)| at / BLOCK..=(at + *size as u64 - 1) / BLOCK).collect();
    let wire = touched.len() as f64 * BLOCK as f64 / (megabits as f64 * 125_000.0);

    println!(
        "\n{what}: {} reads in {} blocks; {round_trip} ms, {megabits} Mbit/s; the wire's limit is {wire:.2} s",
        reads.len(),
        touched.len()
    );
    println!("{:<32} {:>8} {:>8} {:>9} {:>9}", "", "seconds", "MB", "requests", "of limit");
    for tool in TOOLS.into_iter().filter(|(name, ..)| is_wanted(name)) {
        row(tool.0, wire, || measure(tool, server, work, reads));
    }
    if is_wanted(WHOLE_FILE) {
        row(WHOLE_FILE, wire, || whole_file(server));
    }
}
