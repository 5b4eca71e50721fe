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
//! The protocol is `longwire.v1` (`PROTOCOL.md`), in its JSON form.

mod endpoint;
mod error;
mod http;
mod item;
mod publisher;
mod session;
mod silence;
mod sse;
mod subscriber;

pub use endpoint::Endpoint;
pub use error::{Error, Refusal};
pub use item::{Data, Event, Item, State};
pub use longwire_core::log::{Cursor, Since};
pub use longwire_core::session::{Gap, GapReason, Position};
pub use longwire_core::sse::SseEvent;
pub use publisher::{Publisher, publish};
pub use sse::EventStream;
pub use subscriber::{Subscriber, Subscription, Transport};
