//! A server for benchmarks.
use longwire::websocket::{Config, MessageRef, Output, ServeSet, accept, serve};
use std::sync::Arc;
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut args = std::env::args().skip(1);
    let (mut addr, mut api, mut deflate) = (String::new(), "serve".to_owned(), false);
    while let Some(a) = args.next() {
        match &*a {
            "--addr" => addr = args.next().unwrap_or_default(),
            "--api" => api = args.next().unwrap_or_default(),
            "--deflate" => deflate = true,
            _ => {}
        }
    }
    let mut config = Config::default();
    if !deflate {
        config.deflate = None;
    }
    config.protocol.max_message = 64 << 20;
    let config = Arc::new(config);
    let listener = TcpListener::bind(&addr).await.unwrap();
    let (adopter, set) = ServeSet::new().unwrap();
    tokio::spawn(set.run());
    loop {
        let adopter = adopter.clone();
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let config = config.clone();
        let api = api.clone();
        tokio::spawn(async move {
            let Ok(mut socket) = accept(stream, config).await else { return };
            match &*api {
                "set" => {
                    let echo = |message: MessageRef<'_>, out: &mut Output<'_>| out.send(message);
                    adopter.adopt(socket, echo).await;
                }
                "serve" => {
                    let s = serve(socket, |message, out| out.send(message));
                    if std::env::var("SIZES").is_ok() {
                        eprintln!("{}", size_of_val(&s));
                    }
                    tokio::spawn(s);
                }
                "async" => {
                    tokio::spawn(async move {
                        while let Some(Ok(message)) = socket.recv_message().await {
                            if socket.send(message).await.is_err() {
                                return;
                            }
                        }
                    });
                }
                _ => {
                    use futures_util::StreamExt;
                    tokio::spawn(async move {
                        let (sink, stream) = StreamExt::split(socket);
                        let _ = stream.forward(sink).await;
                    });
                }
            }
        });
    }
}
