//! The client of a gateway: reads a log's events over whichever transport works, and publishes to it.
//!
//! ```no_run
//! use longwire::client::{Endpoint, Item, Subscriber, Subscription};
//!
//! # async fn run() -> Result<(), longwire::client::Error> {
//! let endpoint = Endpoint::new("https://telemetry.example.org")?;
//! let mut subscriber = Subscriber::new(endpoint, Subscription::new(["fleet/**"]))?;
//! while let Some(item) = subscriber.next().await {
//!     match item? {
//!         Item::Event(event) => println!("{}: {:?}", event.topic, event.data),
//!         Item::Gap(gap) => eprintln!("missed {} to {}", gap.from, gap.to),
//!         _ => {} // caught up; connected, waiting, ...
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! The protocol is `longwire.v1` (`PROTOCOL.md`).

mod endpoint;
mod error;
mod form;
mod http;
mod item;
mod polls;
mod publish;
mod publisher;
mod session;
mod socket;
mod sse;
mod subscriber;
mod subscription;
mod token;
mod transport;
mod turn;

pub use endpoint::Endpoint;
pub use error::{Error, Refusal};
pub use form::Form;
pub use item::{Data, Event, Item, State};
pub use longwire_core::log::{Cursor, Policy, Since};
pub use longwire_core::session::ladder::Memory;
pub use longwire_core::session::publisher::Incarnation;
pub use longwire_core::session::{Gap, GapReason, Position, Pressure};
pub use longwire_core::sse::SseEvent;
pub use publish::publish;
pub use publisher::{Dropped, Outcome, PublishError, Publisher, PublisherConfig, PublisherCounts, Receipt};
pub use sse::{EventStream, EventStreamOptions};
pub use subscriber::Subscriber;
pub use subscription::Subscription;
pub use transport::Transport;
