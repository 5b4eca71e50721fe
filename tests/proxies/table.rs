//! What `longwire sub` makes of proxies: the rung that works, and the time to the first event. See README.md.

use std::time::{Duration, Instant};

use longwire_tests::gateway::Gateway;
use longwire_tests::process::Program;
use longwire_tests::proxy::{Kind, Proxy, Way};
use longwire_tests::{longwire, workspace};
use serde_json::Value;

const ROUNDS: usize = 5;
const BEGIN: &str = "<!-- table -->\n";
const END: &str = "<!-- end of table -->";

fn main() {
    let write = std::env::args().nth(1).as_deref() == Some("--write");
    let gateway = Gateway::start();
    gateway.publish("proxies/table", &Value::from(1));
    let mut table =
        "| proxy | what it does | rung | time to the first event |\n|---|---|---|---|\n".to_owned();
    let (rung, time) = first_event(&gateway.url());
    table.push_str(&row("none", "", &rung, time));
    for kind in Kind::ALL {
        let proxy = Proxy::start(kind, gateway.address);
        for way in Way::ALL {
            let (rung, time) = first_event(&proxy.url(way));
            table.push_str(&row(kind.name(), way.name(), &rung, time));
        }
    }
    print!("{table}");
    if write {
        let readme = workspace().join("tests/proxies/README.md");
        let text = std::fs::read_to_string(&readme).expect("the page");
        let (before, rest) = text.split_once(BEGIN).expect("the mark");
        let (_, after) = rest.split_once(END).expect("the other mark");
        std::fs::write(&readme, format!("{before}{BEGIN}{table}{END}{after}")).expect("the page is written");
    }
}

fn row(proxy: &str, way: &str, rung: &str, time: Duration) -> String {
    format!("| {proxy} | {way} | {rung} | {} ms |\n", time.as_millis())
}

/// The rung, and the median of the times from the start of the program to the first line that it writes.
fn first_event(url: &str) -> (String, Duration) {
    let mut times = Vec::new();
    let mut rung = String::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let sub =
            Program::start(longwire().args(["sub", "proxies/table", "--json", "--count", "1", "--url", url]));
        sub.wait_for_lines(1);
        times.push(start.elapsed());
        let ended = sub.finish();
        assert!(ended.status.success(), "{ended:?}");
        let connected = ended.stderr.iter().rev().find_map(|line| line.strip_prefix("longwire: connected ("));
        rung = connected.map_or("ws", |rest| rest.trim_end_matches(')')).to_owned();
    }
    times.sort_unstable();
    (rung, times[times.len() / 2])
}
