//! Against tungstenite, an implementation with other authors, in both directions.

use futures_util::{SinkExt, StreamExt};
use longwire::websocket::{
    CloseCause, CloseCode, Config, ConnectOptions, Error, Event, Message, accept, connect_over,
};
use tokio::io::{DuplexStream, duplex};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode as TheirCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::{Message as Theirs, error::ProtocolError};

type Ours = longwire::websocket::WebSocket<DuplexStream>;
type Other = WebSocketStream<DuplexStream>;

/// We connect, they accept.
async fn client() -> (Ours, Other) {
    let (a, b) = duplex(5000);
    let theirs = tokio::spawn(tokio_tungstenite::accept_async(b));
    let ours = connect_over(a, "ws://example.org/path", &ConnectOptions::default()).await.unwrap();
    (ours, theirs.await.unwrap().unwrap())
}

/// They connect, we accept.
async fn server() -> (Ours, Other) {
    let (a, b) = duplex(5000);
    let ours = tokio::spawn(accept(a, Config::default()));
    let (theirs, response) = tokio_tungstenite::client_async("ws://example.org/path", b).await.unwrap();
    assert_eq!(response.status(), 101);
    (ours.await.unwrap().unwrap(), theirs)
}

/// Messages of many sizes: around each form of the length, and up to the limit.
fn messages() -> Vec<Message> {
    let sizes = [0, 1, 124, 125, 126, 127, 4096, 65_535, 65_536, 65_537, 1 << 20];
    let text = sizes.iter().map(|n| Message::text("é".repeat(n / 2)));
    let binary = sizes.iter().map(|n| Message::binary((0..*n).map(|i| i as u8).collect::<Vec<_>>()));
    text.chain(binary).collect()
}

fn to_theirs(message: &Message) -> Theirs {
    match message {
        Message::Text(text) => Theirs::text(text.to_string()),
        Message::Binary(data) => Theirs::binary(data.clone()),
    }
}

#[tokio::test]
async fn messages_go_both_ways_and_either_end_closes() {
    for (mut ours, mut theirs) in [client().await, server().await] {
        // They echo, and close when they are told to.
        let echo = tokio::spawn(async move {
            while let Some(message) = theirs.next().await {
                match message.unwrap() {
                    Theirs::Text(text) if text == "close" => {
                        let frame =
                            CloseFrame { code: TheirCode::Library(4321), reason: "wie du willst".into() };
                        theirs.close(Some(frame)).await.unwrap();
                    }
                    message @ (Theirs::Text(_) | Theirs::Binary(_)) => theirs.send(message).await.unwrap(),
                    _ => {}
                }
            }
        });
        for message in messages() {
            ours.send(message.clone()).await.unwrap();
            assert_eq!(ours.recv_message().await.unwrap().unwrap(), message);
        }
        ours.ping(b"still there?").await.unwrap();
        assert!(matches!(ours.recv().await, Some(Ok(Event::Pong(b"still there?")))));
        ours.send("close").await.unwrap();
        let Some(Ok(Event::Close(close))) = ours.recv().await else { panic!() };
        assert_eq!((close.code, close.reason.as_str()), (CloseCode::new(4321), "wie du willst"));
        assert!(ours.recv().await.is_none());
        assert_eq!(ours.close_cause(), Some(CloseCause::Clean));
        echo.await.unwrap();
    }
}

#[tokio::test]
async fn our_echo_satisfies_them_and_our_close_is_answered() {
    for (mut ours, mut theirs) in [client().await, server().await] {
        let echo = tokio::spawn(async move {
            while let Some(message) = ours.recv_message().await {
                let message = message.unwrap();
                if message.as_str() == Some("close") {
                    return (ours.close(CloseCode::GOING_AWAY, "bye").await, ours.close_cause());
                }
                ours.send(message).await.unwrap();
            }
            panic!("ended too early");
        });
        for message in messages() {
            theirs.send(to_theirs(&message)).await.unwrap();
            assert_eq!(theirs.next().await.unwrap().unwrap(), to_theirs(&message));
        }
        theirs.send(Theirs::text("close")).await.unwrap();
        let Theirs::Close(Some(frame)) = theirs.next().await.unwrap().unwrap() else { panic!() };
        assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1001, "bye"));
        while theirs.next().await.is_some() {}
        drop(theirs);
        let (result, cause) = echo.await.unwrap();
        result.unwrap();
        assert_eq!(cause, Some(CloseCause::Clean));
    }
}

#[tokio::test]
async fn their_fragments_with_pings_in_between_are_one_message() {
    for (mut ours, mut theirs) in [client().await, server().await] {
        let receiving = tokio::spawn(async move {
            let first = ours.recv_message().await.unwrap().unwrap();
            // Whoever only receives answers the last Ping as well.
            (first, ours.recv_message().await.is_none())
        });
        for (text, data, fin) in
            [("Hel", Data::Text, false), ("", Data::Continue, false), ("lo", Data::Continue, true)]
        {
            let frame = Frame::message(text.as_bytes().to_vec(), OpCode::Data(data), fin);
            theirs.send(Theirs::Frame(frame)).await.unwrap();
            theirs.send(Theirs::Ping("in between".into())).await.unwrap();
        }
        for _ in 0..3 {
            assert_eq!(theirs.next().await.unwrap().unwrap(), Theirs::Pong("in between".into()));
        }
        theirs.close(None).await.unwrap();
        while theirs.next().await.is_some() {}
        drop(theirs);
        assert_eq!(receiving.await.unwrap(), (Message::text("Hello"), true));
    }
}

#[tokio::test]
async fn our_fragments_are_one_message_to_them() {
    let (a, b) = duplex(5000);
    let theirs = tokio::spawn(tokio_tungstenite::accept_async(b));
    let mut config = Config::default();
    config.max_send_buffer = 1000;
    let options = ConnectOptions::default().config(config);
    let mut ours = connect_over(a, "ws://example.org/", &options).await.unwrap();
    let mut theirs = theirs.await.unwrap().unwrap();
    let text = "abc €".repeat(20_000);
    let (sent, got) = tokio::join!(ours.send_text(&text), theirs.next());
    sent.unwrap();
    assert_eq!(got.unwrap().unwrap(), Theirs::text(text));
}

#[tokio::test]
async fn what_breaks_the_rules_is_refused_and_they_hear_why() {
    for (mut ours, mut theirs) in [client().await, server().await] {
        let frame = Frame::message(vec![0xff], OpCode::Data(Data::Text), true);
        theirs.send(Theirs::Frame(frame)).await.unwrap();
        let ending = tokio::spawn(async move { ours.recv_message().await });
        let Theirs::Close(Some(frame)) = theirs.next().await.unwrap().unwrap() else { panic!() };
        assert_eq!(u16::from(frame.code), 1007);
        while let Some(next) = theirs.next().await {
            let reset = ProtocolError::ResetWithoutClosingHandshake;
            assert!(matches!(next, Err(tokio_tungstenite::tungstenite::Error::Protocol(e)) if e == reset));
        }
        drop(theirs);
        assert!(matches!(ending.await.unwrap(), Some(Err(Error::Protocol(_)))));
    }
}
