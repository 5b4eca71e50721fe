//! A network whose cable can be pulled: what is sent is lost, and nobody is told.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace, joined to this machine by one cable (a pair of `veth` interfaces). Removed when dropped.
///
/// It takes `ip` (`tests/setup/packages`) and a user who may make namespaces: root.
pub struct Network {
    name: String,
    here: End,
    there: End,
}

/// An end of the cable.
struct End {
    interface: String,
    address: Ipv4Addr,
}

/// Where frames to nobody go.
const NOBODY: &str = "02:00:00:00:00:01";

static NETWORKS: AtomicU32 = AtomicU32::new(0);

impl Network {
    /// Makes one. Panics with what is missing if that is not possible: nothing that needs it is tested then.
    pub fn make() -> Self {
        let nth = NETWORKS.fetch_add(1, Ordering::Relaxed);
        // A network of four addresses among those that are set apart for tests (RFC 2544), hardly ever taken.
        let number = std::process::id().wrapping_mul(8).wrapping_add(nth) % (1 << 15);
        let address = |n| Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + number * 4 + n);
        let end = |side: char, n| End { interface: format!("lw{number}{side}"), address: address(n) };
        let network = Self { name: format!("longwire-{number}"), here: end('h', 1), there: end('t', 2) };
        let (name, here, there) = (&network.name, &network.here, &network.there);
        ip(&format!("netns add {name}"));
        ip(&format!("link add {} type veth peer name {} netns {name}", here.interface, there.interface));
        ip(&format!("addr add {}/30 dev {}", here.address, here.interface));
        ip(&format!("link set {} up", here.interface));
        ip(&format!("-n {name} addr add {}/30 dev {}", there.address, there.interface));
        ip(&format!("-n {name} link set {} up", there.interface));
        ip(&format!("-n {name} link set lo up"));
        network
    }

    /// This machine's address on the cable.
    pub fn address(&self) -> Ipv4Addr {
        self.here.address
    }

    /// Runs `work` at the other end: its sockets, and the programs that it starts, are there.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let there = scope.spawn(|| {
                let namespace =
                    File::open(format!("/run/netns/{}", self.name)).expect("`ip netns add` made it");
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("root may enter a network namespace (CAP_SYS_ADMIN)");
                work()
            });
            there.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Pulls the cable: whatever either end sends is lost, and neither is told.
    pub fn cut(&self) {
        let neighbour = |to: &End, from: &End| {
            format!("neigh replace {} lladdr {NOBODY} dev {} nud permanent", to.address, from.interface)
        };
        ip(&neighbour(&self.there, &self.here));
        ip(&format!("-n {} {}", self.name, neighbour(&self.here, &self.there)));
    }

    /// Puts it back.
    pub fn mend(&self) {
        ip(&format!("neigh del {} dev {}", self.there.address, self.here.interface));
        ip(&format!("-n {} neigh del {} dev {}", self.name, self.here.address, self.there.interface));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for command in [format!("link del {}", self.here.interface), format!("netns del {}", self.name)] {
            let _ = Command::new("ip").args(command.split(' ')).output();
        }
    }
}

/// Runs one command of iproute2.
fn ip(command: &str) {
    let output = Command::new("ip").args(command.split(' ')).output();
    let output = output.unwrap_or_else(|error| panic!("`ip` is missing ({error}): run tests/run setup"));
    assert!(
        output.status.success(),
        "`ip {command}` failed: {}\nThe tests of half-open connections need a Linux on which the user may make network \
         namespaces and veth interfaces: root, with CAP_NET_ADMIN and CAP_SYS_ADMIN.",
        String::from_utf8_lossy(&output.stderr)
    );
}
