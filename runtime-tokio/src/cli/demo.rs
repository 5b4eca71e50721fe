//! `longwire demo`

use super::Failure;
use super::output::{Output, Style};
use super::serve::{Access, Server};
use longwire::client::{Data, Endpoint, Policy, PublishError, Publisher, PublisherConfig};
use longwire::gateway::GatewayConfig;
use longwire::hub::HubConfig;
use rand::{Rng, RngExt as _};
use std::collections::BTreeSet;
use std::io;
use std::time::Duration;
use sysinfo::{Disks, Networks, System};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Watch a fleet of devices live: a gateway, this machine, and devices that are simulated
///
/// This machine reports its own processor, memory, disks and networks. The devices are simulated, but their connections
/// are not: each has a WebSocket of its own to the gateway.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Where to listen; port 0 takes any that is free
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    listen: String,

    /// Devices to simulate
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(0..=2000))]
    devices: u32,

    /// Let everybody in who can reach it, when it listens to other machines
    #[arg(long)]
    insecure: bool,
}

const EXAMPLES: &str = "\
Examples:
  longwire demo
  longwire demo --listen 127.0.0.1:0 --devices 100
  longwire demo --listen 0.0.0.0:8080 --insecure     for others to look at";

/// How often a device reports, more or less.
const INTERVAL: Duration = Duration::from_secs(1);

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let access = if args.insecure { Access::Everybody } else { Access::ThisMachine };
    let server =
        Server::start(&args.listen, None, access, GatewayConfig::default(), HubConfig::default()).await?;
    server.announce()?;
    let url = server.url();
    tell(&url, args.devices)?;
    let endpoint = Endpoint::new(&url)?;
    let mut fleet = JoinSet::new();
    fleet.spawn(live(endpoint.clone(), Machine::new()));
    for number in 1..=args.devices {
        fleet.spawn(live(endpoint.clone(), Simulated::new(number, &mut rand::rng())));
    }
    server.run().await;
    // Dropped with the set, the devices are gone.
    Ok(())
}

/// Says what to do next.
fn tell(url: &str, devices: u32) -> io::Result<()> {
    let program = std::env::args().next().unwrap_or_else(|| "longwire".to_owned());
    let mut out = Output::new();
    let mut line = |style, text: &str| {
        out.put(style, text)?;
        out.end_line()
    };
    line(Style::Plain, "")?;
    line(Style::Topic, &format!("  open {url}/ in a browser"))?;
    line(Style::Dim, &format!("  {devices} simulated devices and this machine report once a second"))?;
    for (title, command) in [
        ("The same events over WebSocket", format!("{program} sub 'fleet/**' --transport ws --url {url}")),
        (
            "Server-Sent Events",
            format!("curl -N -H 'Accept: text/event-stream' '{url}/v1/stream?topic=fleet/**'"),
        ),
        ("a long poll", format!("curl '{url}/v1/stream?topic=fleet/**&since=now&wait=25'")),
        ("a poll", format!("curl -i '{url}/v1/stream?topic=fleet/**'")),
        (
            "Report something yourself",
            format!("{program} pub fleet/mine/telemetry '{{\"temperature\":21.5}}' --url {url}"),
        ),
    ] {
        line(Style::Plain, "")?;
        line(Style::Dim, &format!("  {title}"))?;
        line(Style::Plain, &format!("  {command}"))?;
    }
    line(Style::Plain, "")?;
    line(Style::Dim, "  Ctrl-C ends it.")?;
    out.flush()
}

/// Something that reports.
trait Device {
    /// What it has to say now: topics and JSON. `seq` counts its reports, from 1.
    fn report(&mut self, seq: u64) -> Vec<(String, String)>;
}

/// The life of a device: it reports, and whether the gateway is there is the publisher's affair.
async fn live(endpoint: Endpoint, mut device: impl Device) {
    // Not all in the same moment.
    tokio::time::sleep(INTERVAL.mul_f64(rand::random())).await;
    let mut config = PublisherConfig::default();
    // After an outage the present counts, not what it was like.
    (config.outbox_events, config.policy) = (16, Policy::Conflate);
    let publisher = Publisher::new(endpoint, config);
    for seq in 1.. {
        for (topic, json) in device.report(seq) {
            let data = Data::json(json).map_err(PublishError::Invalid);
            if let Err(error) = data.and_then(|data| publisher.try_publish(&topic, None, data)) {
                tracing::warn!(%error, "a device gives up");
                return;
            }
        }
        let pause = INTERVAL.mul_f64(rand::rng().random_range(0.8..1.2));
        tokio::time::sleep(pause).await;
    }
}

/// A device that does not exist.
struct Simulated {
    topic: String,
    temperature: f64,
    humidity: f64,
    battery: f64,
}

impl Simulated {
    fn new(number: u32, rng: &mut impl Rng) -> Self {
        Self {
            topic: format!("fleet/sim-{number:03}/telemetry"),
            temperature: rng.random_range(16.0..26.0),
            humidity: rng.random_range(30.0..60.0),
            battery: rng.random_range(60.0..100.0),
        }
    }
}

impl Device for Simulated {
    fn report(&mut self, seq: u64) -> Vec<(String, String)> {
        let mut rng = rand::rng();
        self.temperature = (self.temperature + rng.random_range(-0.2..0.2)).clamp(-20.0, 60.0);
        self.humidity = (self.humidity + rng.random_range(-0.5..0.5)).clamp(0.0, 100.0);
        self.battery = (self.battery - rng.random_range(0.0..0.01)).max(0.0);
        let Self { topic, temperature, humidity, battery } = self;
        let json = format!(
            r#"{{"temperature":{temperature:.2},"humidity":{humidity:.1},"battery":{battery:.1},"seq":{seq}}}"#
        );
        vec![(topic.clone(), json)]
    }
}

/// The machine that this runs on; what its system does not tell is not reported.
struct Machine {
    system: Option<System>,
    disks: Option<Disks>,
    networks: Option<Networks>,
    /// When the networks were last asked.
    asked: Instant,
}

impl Machine {
    fn new() -> Self {
        let mut system = System::new().ok();
        // Usage is a difference: this is where it begins.
        if let Some(system) = &mut system {
            system.refresh_cpu_usage();
        }
        let disks = Disks::new_with_refreshed_list().ok();
        Self { system, disks, networks: Networks::new_with_refreshed_list().ok(), asked: Instant::now() }
    }

    fn cpu(&mut self) -> Option<String> {
        let system = self.system.as_mut()?;
        system.refresh_cpu_usage();
        let percent = Some(system.global_cpu_usage()).filter(|percent| percent.is_finite())?;
        Some(format!(r#""percent":{percent:.1}"#))
    }

    fn memory(&mut self) -> Option<String> {
        let system = self.system.as_mut()?;
        system.refresh_memory();
        used(system.used_memory(), system.total_memory())
    }

    /// All disks together; one that is mounted twice counts once.
    fn disk(&mut self) -> Option<String> {
        let disks = self.disks.as_mut()?;
        disks.refresh(true);
        let mut seen = BTreeSet::new();
        let (mut free, mut total) = (0u64, 0u64);
        for disk in disks.iter().filter(|disk| seen.insert(disk.name())) {
            free = free.saturating_add(disk.available_space());
            total = total.saturating_add(disk.total_space());
        }
        used(total.saturating_sub(free), total)
    }

    fn network(&mut self) -> Option<String> {
        let networks = self.networks.as_mut()?;
        networks.refresh(true);
        let seconds = std::mem::replace(&mut self.asked, Instant::now()).elapsed().as_secs_f64().max(0.001);
        let (mut received, mut sent) = (0u64, 0u64);
        for network in networks.values() {
            received = received.saturating_add(network.received());
            sent = sent.saturating_add(network.transmitted());
        }
        let [received, sent] = [received, sent].map(|bytes| (bytes as f64 / seconds).round());
        Some(format!(r#""received_bytes_per_second":{received},"sent_bytes_per_second":{sent}"#))
    }
}

/// How much of something is used.
fn used(used: u64, total: u64) -> Option<String> {
    let percent = used as f64 * 100.0 / total as f64;
    (total > 0).then(|| format!(r#""percent":{percent:.1},"used_bytes":{used},"total_bytes":{total}"#))
}

impl Device for Machine {
    fn report(&mut self, seq: u64) -> Vec<(String, String)> {
        let figures = [
            ("cpu", self.cpu()),
            ("memory", self.memory()),
            ("disk", self.disk()),
            ("network", self.network()),
        ];
        let report = |(name, fields)| {
            let fields: String = fields?;
            Some((format!("fleet/this-machine/{name}"), format!(r#"{{{fields},"seq":{seq}}}"#)))
        };
        figures.into_iter().filter_map(report).collect()
    }
}
