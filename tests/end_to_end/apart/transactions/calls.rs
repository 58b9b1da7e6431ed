//! gRPC and WebSocket.

use tests::{
    programs::{
        output,
        scripts::{grpc_client, grpc_server, websocket_client, websocket_server},
        tshark::Tshark,
    },
    record::{grpc, http, websocket},
    scene::{Order, Scene, Turns},
    stage::apart,
};

#[test]
fn grpc_calls_are_what_the_server_logged() {
    apart(|| {
        let server = grpc_server()?;
        let port = server.port;
        let scene = Scene::start(&[port])?;
        assert_eq!(output(&mut grpc_client(port)?)?.trim(), "done");
        let logged = server.logged(8)?;
        let evidence = scene.finish(&[(port, logged.len())])?;
        evidence.assert_agrees("the server", port, grpc, Order::Any, &logged);
        let tshark = Tshark { file: &evidence.capture, port };
        evidence.assert_agrees("tshark", port, grpc, Order::Any, &tshark.grpc()?);
        evidence.assert_replayed("egress", Turns::Sums, &[])
    });
}

#[test]
fn websocket_sessions_are_what_the_server_logged() {
    apart(|| {
        let server = websocket_server()?;
        let port = server.port;
        let scene = Scene::start(&[port])?;
        assert_eq!(output(&mut websocket_client(port)?)?.trim(), "done");
        let logged = server.logged(4)?;
        let evidence = scene.finish(&[(port, 2 * logged.len())])?;
        evidence.assert_agrees("the server", port, websocket, Order::Connection, &logged);
        let tshark = Tshark { file: &evidence.capture, port };
        let sessions = tshark.websocket()?;
        evidence.assert_agrees("tshark", port, websocket, Order::Connection, &sessions);
        evidence.assert_agrees("tshark", port, http, Order::Connection, &tshark.http1()?);
        evidence.assert_replayed("egress", Turns::Each, &[])
    });
}
