//! `GET /certs`: the configuration of metal-hammer, made for the one machine that asks.

use ::http::{HeaderMap, StatusCode};
use switch_agent_core::discovery::headers::tells_of_forwarding;
use switch_agent_core::discovery::metal_stack_v1::config::{Issued, document};
use switch_agent_core::machines::ProxyStep;

use super::{Outcome, binding, unusable};
use crate::http::discovery::answer::{Refusal, json, token_bearing};
use crate::http::discovery::incomer::Incomer;
use crate::http::discovery::routes::machine_config;

pub(super) async fn serve(incomer: &Incomer<'_>, headers: &HeaderMap) -> Outcome {
    if headers.keys().any(|name| tells_of_forwarding(name.as_str())) {
        let message = "no credentials for forwarded requests; ask from the machine itself";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "forwarded-request", message));
    }
    let port = incomer.port;
    let dialect = &port.shared.metal_stack_v1;
    let context = port.context();
    let config = machine_config(incomer, &context).await?.map(|config| config.object).unwrap_or_default();
    let mac = incomer.known_mac().await?;
    let authority = dialect.authority.get().ok_or_else(unusable)?;
    let machine = dialect.credentials.machine(&port.listener.port);
    let failed = |error: &dyn std::fmt::Display| {
        tracing::warn!(port = %port.listener.port, %error, "no credentials can be made");
        let message = "the switch cannot make credentials; see its log";
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "credentials-unmade", message)
    };
    let made = authority.client(&context, machine.as_ref()).map_err(|error| failed(&error))?;
    let at = binding(incomer, &context, mac);
    let issued = dialect.credentials.issue(at, made.fingerprint);
    let hmac = issued.map_err(|error| failed(&error))?;
    // They are fetched once: those that a restart forgets would be good for nothing.
    dialect.credentials.written().await;
    let ca_cert = authority.pem().to_owned();
    let issued = Issued { ca_cert, cert: made.pem, key: made.key_pem, hmac };
    tracing::info!(port = %port.listener.port, %mac, "credentials made");
    incomer.report(Some(mac), ProxyStep::Config);
    Ok(token_bearing(json(StatusCode::OK, &document(&context, issued, &config))))
}
