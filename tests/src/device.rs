//! The emulated devices, and what can be seen of them from outside.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::process::{Ended, Program};
use crate::relay::Tap;
use crate::{PATIENCE, cargo_build, cbor, workspace};

/// The boards that QEMU emulates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Board {
    /// Arm's MPS2: Cortex-M3, LAN9118.
    Mps2,
    /// The same with more memory, which speaks TLS.
    Mps2Tls,
    /// Stellaris LM3S6965: Cortex-M3, 256 KiB of flash, 64 KiB of RAM.
    Lm3s6965,
    /// RV32IMAC with a virtio network.
    Riscv32,
}

impl Board {
    /// All that speak plainly.
    pub const ALL: [Self; 3] = [Self::Mps2, Self::Lm3s6965, Self::Riscv32];

    /// The name of its folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mps2 => "qemu-mps2",
            Self::Mps2Tls => "qemu-mps2-tls",
            Self::Lm3s6965 => "qemu-lm3s6965",
            Self::Riscv32 => "qemu-riscv32",
        }
    }

    /// What its processor is to the compiler.
    pub fn target(self) -> &'static str {
        match self {
            Self::Mps2 | Self::Mps2Tls | Self::Lm3s6965 => "thumbv7m-none-eabi",
            Self::Riscv32 => "riscv32imac-unknown-none-elf",
        }
    }

    fn folder(self) -> PathBuf {
        firmware().join(self.name())
    }

    /// The emulator, which runs this ELF file.
    pub fn emulator(self, elf: PathBuf) -> Command {
        let mut command = Command::new(firmware().join("emulated/qemu"));
        command.arg(self.name()).arg(elf);
        command
    }
}

fn firmware() -> PathBuf {
    workspace().join("runtime-embassy/firmware")
}

/// A device that runs in the emulator. It ends when this is dropped.
pub struct Device {
    /// The emulator.
    pub program: Program,
    monitor: Monitor,
}

/// The socket of the emulator's monitor; the emulator leaves it behind when it is killed.
struct Monitor(PathBuf);

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Device {
    /// Starts the firmware with these settings (see `longwire_firmware::Settings`); cargo builds it if it has to.
    pub fn start(board: Board, settings: &[String]) -> Self {
        static DEVICES: AtomicU32 = AtomicU32::new(0);
        let nth = DEVICES.fetch_add(1, Ordering::Relaxed);
        // Not below the workspace: such a path may have no more than 107 bytes.
        let monitor = std::env::temp_dir().join(format!("longwire-{}-{nth}.qmp", std::process::id()));
        let firmware = cargo_build(&board.folder(), &[]);
        let mut emulator = board.emulator(firmware);
        emulator.args(settings).env("QMP", &monitor);
        Self { program: Program::start(&mut emulator), monitor: Monitor(monitor) }
    }

    /// Pulls the cable, or puts it back: meanwhile every frame is lost, and nobody is told.
    pub fn set_link(&self, up: bool) {
        let stream = UnixStream::connect(&self.monitor.0).expect("the emulator listens for its monitor");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let mut lines = BufReader::new(&stream).lines();
        let mut answer = || {
            let line = lines.next().expect("an answer").expect("in time");
            serde_json::from_str::<Value>(&line).expect("JSON")
        };
        assert!(answer()["QMP"].is_object());
        for command in [
            json!({"execute": "qmp_capabilities"}),
            json!({"execute": "set_link", "arguments": {"name": "net", "up": up}}),
        ] {
            writeln!(&stream, "{command}").expect("it reads");
            // Events may come in between.
            while answer().get("return").is_none() {}
        }
    }

    /// Waits for the end, at most this long.
    pub fn finish_within(self, patience: Duration) -> Ended {
        self.program.finish_within(patience)
    }

    /// Cuts its power, which it learns nothing of; says what it had said.
    pub fn cut_power(self) -> Ended {
        self.program.kill();
        self.program.finish()
    }

    /// Waits until what it said has a line for which `found` gives something.
    pub fn wait_for<T>(&self, what: &str, mut found: impl FnMut(&str) -> Option<T>) -> T {
        // The emulator chooses one of both.
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = self.said().iter().find_map(|line| found(line)) {
                return found;
            }
            assert!(Instant::now() < deadline, "no {what}:\n{}", self.program.said());
            // The interval of a look.
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The lines so far.
    pub fn said(&self) -> Vec<String> {
        [self.program.lines(), self.program.errors()].concat()
    }
}

/// The file that is a device's flash. It is removed with this.
pub struct Flash(PathBuf);

impl Flash {
    /// Erased; `name` is the test's own.
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("longwire-{}-{name}.flash", std::process::id()));
        let _ = std::fs::remove_file(&path);
        Self(path)
    }

    /// As the settings have it.
    pub fn setting(&self) -> String {
        format!("flash={}", self.0.display())
    }

    /// What it holds now; nothing before a device has begun.
    pub fn content(&self) -> Vec<u8> {
        std::fs::read(&self.0).unwrap_or_default()
    }
}

impl Drop for Flash {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What a device with a flash says of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Readings that were in the flash at boot.
    pub restored: u64,
    /// So many of all that were reported, those among them, came before the last write.
    pub kept: u64,
}

impl Kept {
    /// `None` when the line is about something else.
    pub fn of(line: &str) -> Option<Self> {
        let counts = line.strip_prefix("flash: ")?;
        let count = |name: &str| -> u64 {
            let value =
                counts.split_once(&format!(" {name}: ")).map(|(_, rest)| rest.split([',', ' ']).next());
            value.flatten().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{name} in {counts}"))
        };
        assert_eq!(
            count("homeless") + count("damaged") + count("too_large") + count("errors"),
            0,
            "{counts}"
        );
        Some(Self { restored: count("restored"), kept: count("kept") })
    }
}

/// A publication as it went over the wire.
#[derive(Clone, Debug, PartialEq)]
pub struct Publication {
    /// Its number.
    pub n: u64,
    /// Its TOPIC.
    pub topic: String,
    /// Its value.
    pub data: Value,
}

/// What went over one WebSocket of a device, understood.
#[derive(Clone, Debug)]
pub struct Conversation {
    /// `publisher` of the URL.
    pub incarnation: String,
    /// In the order in which they were sent.
    pub publications: Vec<Publication>,
    /// Messages of the gateway, by the numbers of their fields.
    pub answers: Vec<Value>,
}

impl Conversation {
    /// `None` when the tap has no whole request for an upgrade.
    pub fn of(tap: &Tap) -> Option<Self> {
        let (head, up) = split_head(&tap.up)?;
        let (_, rest) = head.split_once("publisher=")?;
        let incarnation = rest.get(..16)?.to_owned();
        let messages = |bytes| {
            messages(bytes).into_iter().filter_map(|message| cbor::decode(&mut &message[..])).collect()
        };
        let sent: Vec<Value> = messages(up);
        let publications = sent.into_iter().filter(|message| message["0"] == 3).map(|message| Publication {
            n: message["7"].as_u64().expect("a device numbers its publications"),
            topic: message["1"].as_str().expect("a topic").to_owned(),
            data: message["4"].clone(),
        });
        let answers = split_head(&tap.down).map_or(Vec::new(), |(_, down)| messages(down));
        Some(Self { incarnation, publications: publications.collect(), answers })
    }

    /// Up to which number publications were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        let ack = |answer: &Value| (answer["0"] == 19).then(|| answer["7"].as_u64()).flatten();
        self.answers.iter().filter_map(ack).max().unwrap_or(0)
    }

    /// The gateway's messages of this type.
    pub fn answers_of(&self, code: u64) -> impl Iterator<Item = &Value> {
        self.answers.iter().filter(move |answer| answer["0"] == code)
    }
}

/// What was sent under which number, over all conversations of a device that kept its numbers. Panics when a number stands for
/// two things, or when there are two incarnations.
pub fn numbered(conversations: &[Conversation]) -> BTreeMap<u64, Publication> {
    let mut all = BTreeMap::<u64, Publication>::new();
    for conversation in conversations {
        assert_eq!(conversation.incarnation, conversations[0].incarnation, "one incarnation");
        for publication in &conversation.publications {
            let first = all.entry(publication.n).or_insert_with(|| publication.clone());
            assert_eq!(first, publication, "a number stands for one publication, however often it is sent");
        }
    }
    all
}

fn split_head(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    Some((std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end..]))
}

/// The binary messages among these frames (RFC 6455 section 5.2), masked or not; the last may be cut off.
fn messages(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let Some((opcode, payload)) = frame(&mut bytes) {
        if opcode == crate::ws::opcode::BINARY {
            messages.push(payload);
        }
    }
    messages
}

fn frame(bytes: &mut &[u8]) -> Option<(u8, Vec<u8>)> {
    let (&[first, second], mut rest) = bytes.split_first_chunk()?;
    let len = match second & 0x7f {
        126 => {
            let (len, behind) = rest.split_first_chunk()?;
            rest = behind;
            usize::from(u16::from_be_bytes(*len))
        }
        127 => panic!("a device has no message of 64 KiB"),
        len => usize::from(len),
    };
    let mut mask = [0; 4];
    if second & 0x80 != 0 {
        (mask, rest) = rest.split_first_chunk().map(|(mask, rest)| (*mask, rest))?;
    }
    let (payload, behind) = rest.split_at_checked(len)?;
    *bytes = behind;
    Some((first & 0x0f, payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()))
}
