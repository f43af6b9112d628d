//! `api.v1.BootService` and `api.v1.EventService` by hand: messages of one or two fields.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Request, Response};
use tokio::sync::oneshot;

use super::state::State;
use super::{Body, full};

const MESSAGE_LEN_MAX: usize = 4 << 20;
/// How often a waiting machine is told that it still waits.
const WAIT_INTERVAL: Duration = Duration::from_secs(5);
const BOOT: &str = "/api.v1.BootService/";
const SEND: &str = "/api.v1.EventService/Send";

/// gRPC status codes.
const INVALID_ARGUMENT: &str = "3";
const UNIMPLEMENTED: &str = "12";
const INTERNAL: &str = "13";

fn header(response: &mut Response<Body>) {
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
}

/// A reply of trailers alone.
fn status(code: &'static str) -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    header(&mut response);
    response.headers_mut().insert("grpc-status", HeaderValue::from_static(code));
    response
}

fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers
}

fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap_or_default();
    [&[0], &length.to_be_bytes()[..], message].concat().into()
}

/// One message, and a good end.
async fn unary(message: &[u8]) -> Response<Body> {
    let (mut sender, body) = Channel::new(2);
    // Both fit the channel.
    sender.send_data(framed(message)).await.ok();
    sender.send_trailers(ok_trailers()).await.ok();
    let mut response = Response::new(body.boxed_unsync());
    header(&mut response);
    response
}

/// Length-delimited fields of a message.
fn fields(mut message: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    fn varint(message: &mut &[u8]) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = message.split_first()?;
            *message = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
    let mut found = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let length = match tag & 7 {
            0 => {
                varint(&mut message)?;
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut message)?).ok()?,
            5 => 4,
            _ => return None,
        };
        let (content, rest) = message.split_at_checked(length)?;
        message = rest;
        if tag & 7 == 2 {
            found.push((tag >> 3, content));
        }
    }
    Some(found)
}

/// Text of field 1, of which the last one counts.
fn first(message: &[u8]) -> Option<String> {
    let fields = fields(message)?;
    let (_, text) = fields.iter().rfind(|(number, _)| *number == 1)?;
    String::from_utf8(text.to_vec()).ok()
}

pub(super) async fn answer(
    request: Request<Incoming>,
    state: Arc<State>,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = match Limited::new(request.into_body(), MESSAGE_LEN_MAX + 5).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Ok(status(INTERNAL)),
    };
    let Some(message) = body.get(5..) else { return Ok(status(INTERNAL)) };
    if path == SEND {
        let events = fields(message).unwrap_or_default();
        for (_, entry) in events.iter().filter(|(number, _)| *number == 1) {
            state.note("Send", first(entry).as_deref(), "ok");
        }
        return Ok(unary(&[0x08, u8::try_from(events.len()).unwrap_or(u8::MAX)]).await);
    }
    let procedure = path.strip_prefix(BOOT).unwrap_or_default().to_owned();
    if procedure == "SuperUserPassword" {
        state.note(&procedure, None, "ok");
        // feature_disabled = true
        return Ok(unary(&[0x08, 1]).await);
    }
    if !["Dhcp", "Register", "Wait", "Report", "AbortReinstall"].contains(&procedure.as_str()) {
        state.note(&path, None, "unimplemented");
        return Ok(status(UNIMPLEMENTED));
    }
    let Some(machine) = first(message).filter(|machine| !machine.is_empty()) else {
        return Ok(status(INVALID_ARGUMENT));
    };
    if procedure == "Wait" {
        return Ok(wait(&machine, state));
    }
    state.note(&procedure, Some(&machine), "ok");
    match procedure.as_str() {
        "Register" => {
            if !state.register(&machine) {
                return Ok(status(INTERNAL));
            }
            let texts = [machine.as_str(), "c1-large-x86", "lab"];
            let message = texts.iter().zip([0x0a, 0x12, 0x1a]).flat_map(|(text, tag)| {
                [&[tag, u8::try_from(text.len()).unwrap_or_default()], text.as_bytes()].concat()
            });
            Ok(unary(&message.collect::<Vec<u8>>()).await)
        }
        _ => Ok(unary(&[]).await),
    }
}

/// The machine waits as long as its stream lasts; its good end means that it is allocated.
fn wait(machine: &str, state: Arc<State>) -> Response<Body> {
    let Some(mut allocated) = state.wait(machine) else { return status(INTERNAL) };
    state.note("Wait", Some(machine), "begins");
    let (mut sender, body) = Channel::new(1);
    // Dropped with the stream.
    let (alive, mut gone) = oneshot::channel::<()>();
    let body = body.map_frame(move |frame| {
        let _ = &alive;
        frame
    });
    let machine = machine.to_owned();
    tokio::spawn(async move {
        let outcome = loop {
            let told = tokio::select! {
                told = allocated.wait_for(|allocated| *allocated) => told.is_ok(),
                () = tokio::time::sleep(WAIT_INTERVAL) => false,
                _ = &mut gone => break "cancelled",
            };
            if told {
                sender.send_trailers(ok_trailers()).await.ok();
                break "allocated";
            }
            if sender.send_data(framed(&[])).await.is_err() {
                break "cancelled";
            }
        };
        state.waits_no_more(&machine);
        state.note("Wait", Some(&machine), outcome);
    });
    let mut response = Response::new(body.boxed_unsync());
    header(&mut response);
    response
}
