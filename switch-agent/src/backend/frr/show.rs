//! What to ask FRR, and what its answers say. The JSON keys are the same from FRR 8.4 to 10.7.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv6Net;
use serde_json::Value;
use switch_agent_core::frr::{DEFAULT_VRF, ExportedRoute, FrrObserved, Running, VrfRoutes};
use switch_agent_core::name::VrfName;

use super::FrrError;
use super::process::Output;

pub(super) const RUNNING_CONFIG: &str = "show running-config";

/// Longest piece of FRR's output that an error quotes, in characters.
const QUOTE_MAX: usize = 300;

/// The requests of one observation, in order.
#[derive(Debug)]
pub(super) struct Survey<'a> {
    vrfs: &'a BTreeMap<VrfName, String>,
    leak_vrfs: BTreeSet<&'a str>,
    exported: &'a [Ipv6Net],
}

impl<'a> Survey<'a> {
    pub(super) fn new(vrfs: &'a BTreeMap<VrfName, String>, exported: &'a [Ipv6Net]) -> Survey<'a> {
        Survey { vrfs, leak_vrfs: vrfs.values().map(String::as_str).collect(), exported }
    }

    pub(super) fn requests(&self) -> Vec<String> {
        let mut requests = vec![RUNNING_CONFIG.to_owned(), "show bgp vrfs json".to_owned()];
        for vrf in self.vrfs.keys() {
            requests.push(format!("show bgp vrf {vrf} ipv6 unicast json"));
            requests.push(format!("show ipv6 route vrf {vrf} json"));
        }
        for leak_vrf in &self.leak_vrfs {
            requests.push(format!("show ipv6 route vrf {leak_vrf} static json"));
            requests.push(format!("show ipv6 route vrf {leak_vrf} connected json"));
            requests.extend(self.exported.iter().map(|prefix| bgp_route(leak_vrf, *prefix)));
        }
        requests
    }

    /// Puts the answers together; there are as many as requests, without the running configuration.
    pub(super) fn evaluate(&self, running_config: &str, answers: &[Value]) -> FrrObserved {
        let running = Running::parse(running_config);
        let mut answers = answers.iter();
        let mut next = || answers.next().unwrap_or(&Value::Null);
        let bgp = next();
        let mut observed = FrrObserved {
            managed: true,
            version: running.version,
            running_config: running_config.to_owned(),
            local_asn: running.bgp.get(DEFAULT_VRF).and_then(|instance| instance.asn_number()),
            router_id: bgp["vrfs"][DEFAULT_VRF]["routerId"].as_str().and_then(|id| id.parse().ok()),
            ..FrrObserved::default()
        };
        for vrf in self.vrfs.keys() {
            let (bgp_table, rib) = (next(), next());
            observed.routes.insert(vrf.clone(), vrf_routes(bgp_table, rib));
        }
        for leak_vrf in &self.leak_vrfs {
            let statics = next();
            let connected = next().as_object().into_iter().flatten();
            let connected = connected.filter_map(|(prefix, _)| prefix.parse().ok()).collect();
            observed.connected.insert((*leak_vrf).to_owned(), connected);
            for prefix in self.exported {
                let advertised = next()["advertisedTo"].as_object().is_some_and(|peers| !peers.is_empty());
                if let Some(route) = exported_route(&statics[prefix.to_string()], advertised) {
                    observed.exported.insert(*prefix, route);
                }
            }
        }
        observed
    }
}

pub(super) fn bgp_route(vrf: &str, prefix: Ipv6Net) -> String {
    format!("show bgp vrf {vrf} ipv6 unicast {prefix} json")
}

/// Whether an answer to [`bgp_route`] has a valid best path, which is what an import takes.
pub(super) fn has_best_path(answer: &Value) -> bool {
    let paths = answer["paths"].as_array().into_iter().flatten();
    let mut best = paths.filter(|path| path["bestpath"]["overall"] == true);
    best.any(|path| path["valid"] == true)
}

fn vrf_routes(bgp_table: &Value, rib: &Value) -> VrfRoutes {
    let mut routes = VrfRoutes::default();
    let in_rib = |prefix: &str| rib[prefix].as_array().into_iter().flatten();
    let active = |route: &Value| route["selected"] == true && route["installed"] == true;
    for (prefix, paths) in bgp_table["routes"].as_object().into_iter().flatten() {
        // Only leaked paths name the VRF of their next hop.
        let leaked = paths.as_array().into_iter().flatten().any(|path| path["nhVrfName"].is_string());
        let (true, Ok(parsed)) = (leaked, prefix.parse::<Ipv6Net>()) else {
            continue;
        };
        let installed = in_rib(prefix).any(|route| route["protocol"] == "bgp" && active(route));
        routes.imported.insert(parsed, installed);
    }
    routes.deny_installed = in_rib("::/0").any(|route| {
        let mut nexthops = route["nexthops"].as_array().into_iter().flatten();
        route["protocol"] == "static" && active(route) && nexthops.any(|hop| hop["blackhole"] == true)
    });
    for (prefix, _) in rib.as_object().into_iter().flatten() {
        let Ok(parsed) = prefix.parse() else { continue };
        if in_rib(prefix).any(|route| route["protocol"] == "connected") {
            routes.connected.insert(parsed);
        }
        let leads_on = |route: &&Value| {
            let mut nexthops = route["nexthops"].as_array().into_iter().flatten();
            route["protocol"] == "static" && !nexthops.any(|hop| hop["blackhole"] == true)
        };
        if let Some(route) = in_rib(prefix).find(leads_on) {
            routes.statics.insert(parsed, active(route));
        }
    }
    routes
}

fn exported_route(entries: &Value, advertised: bool) -> Option<ExportedRoute> {
    let entries = entries.as_array()?;
    let route = entries.iter().find(|route| route["selected"] == true).or_else(|| entries.first())?;
    let interface = route["nexthops"][0]["interfaceName"].as_str()?.to_owned();
    let installed = route["selected"] == true && route["installed"] == true;
    Some(ExportedRoute { interface, installed, advertised })
}

/// Splits an output that begins with the running configuration.
///
/// # Errors
/// It does not, or the rest is not an answer to each of the other requests.
pub(super) fn split_answers<'t>(
    output: &'t Output,
    requests: &[String],
) -> Result<(&'t str, Vec<Value>), FrrError> {
    let text = &output.text;
    const END: &str = "\nend\n";
    let incomplete = || FrrError::Answer {
        request: RUNNING_CONFIG.to_owned(),
        text: quote(if output.errors.is_empty() { text } else { &output.errors }),
    };
    let end = text.find(END).ok_or_else(incomplete)? + END.len();
    let (running_config, rest) = text.split_at(end);
    if !running_config.contains("\nfrr version ") {
        return Err(incomplete());
    }
    Ok((running_config, parse_answers(rest, &output.errors, requests.get(1..).unwrap_or_default())?))
}

/// The answers to `requests`, one each: a JSON value, or a line of text. A line that says that a VRF is
/// unknown stands for an empty answer; any other is an error.
///
/// # Errors
/// A daemon is away, or the number of answers is not that of the requests.
pub(super) fn parse_answers(text: &str, errors: &str, requests: &[String]) -> Result<Vec<Value>, FrrError> {
    let mut answers = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let request = requests.get(answers.len()).map_or("", String::as_str);
        let failed = |text: &str| FrrError::Answer { request: request.to_owned(), text: quote(text) };
        if rest.starts_with(['{', '[']) {
            let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
            let value = values.next().and_then(Result::ok).ok_or_else(|| failed(rest))?;
            rest = &rest[values.byte_offset()..];
            answers.push(value);
        } else {
            let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
            let unknown_vrf = line.contains("VRF") && line.contains("not found");
            if !unknown_vrf {
                return Err(failed(line));
            }
            rest = after;
            answers.push(Value::Null);
        }
        rest = rest.trim_start();
    }
    if answers.len() != requests.len() {
        let text = quote(if errors.is_empty() { text } else { errors });
        return Err(FrrError::Incomplete { wanted: requests.len(), found: answers.len(), text });
    }
    Ok(answers)
}

/// The lines by which FRR refuses configuration, or `None`. Notes (a static route that waits for its VRF,
/// an empty commit) are no complaint.
pub(super) fn complaint(text: &str) -> Option<String> {
    const NOTES: [&str; 4] = [
        "not installed currently",
        "Configuration applied with notes",
        "No changes found to be committed",
        "No configuration changes to commit",
    ];
    let refused = |line: &&str| {
        let line = line.trim_start();
        (line.starts_with('%') || line.ends_with(" is not running"))
            && !NOTES.iter().any(|note| line.contains(note))
    };
    let lines: Vec<&str> = text.lines().filter(refused).map(str::trim).collect();
    (!lines.is_empty()).then(|| quote(&lines.join("; ")))
}

/// The requests that vtysh echoed behind its prompt, in order. Where it complained, the last one is what it
/// complained about.
pub(super) fn echoed<'r>(text: &str, requests: &'r [String]) -> &'r [String] {
    let mut count = 0;
    for line in text.lines() {
        let behind_prompt =
            |request: &String| line.strip_suffix(request).is_some_and(|left| left.ends_with("# "));
        count += usize::from(requests.get(count).is_some_and(behind_prompt));
    }
    &requests[..count]
}

/// Another session holds the datastore: try again.
pub(super) fn is_lock_race(text: &str) -> bool {
    [
        "locked by another",
        "Lock already taken",
        "lock failed",
        "could not lock",
        "VTY configuration is locked",
    ]
    .iter()
    .any(|known| text.contains(known))
}

fn quote(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(QUOTE_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "Building configuration...\n\nCurrent configuration:\n!\nfrr version 8.4.4\n!\nrouter bgp 65000\nexit\n!\nend\n";

    fn vrfs() -> BTreeMap<VrfName, String> {
        BTreeMap::from([("VrfBoot-p1".parse().unwrap(), "default".to_owned())])
    }

    fn output(text: String) -> Output {
        Output { text, errors: String::new() }
    }

    #[test]
    fn one_process_answers_a_whole_observation() {
        let exported = ["2001:db8:b000::/64".parse().unwrap()];
        let vrfs = vrfs();
        let survey = Survey::new(&vrfs, &exported);
        let text = output(format!("{CONFIG}{}", include_str!("testdata/converged-8.4.4.json")));
        let (config, answers) = split_answers(&text, &survey.requests()).unwrap();
        let observed = survey.evaluate(config, &answers);
        assert_eq!(observed.version.as_deref(), Some("8.4.4"));
        assert_eq!(observed.local_asn, Some(65000));
        assert_eq!(observed.router_id, Some("10.0.0.1".parse().unwrap()));
        let routes = &observed.routes[&"VrfBoot-p1".parse().unwrap()];
        assert_eq!(routes.imported, BTreeMap::from([("2001:db8:a91::/64".parse().unwrap(), true)]));
        assert!(routes.deny_installed);
        assert!(routes.connected.contains(&exported[0]));
        assert_eq!(observed.connected["default"], ["2001:db8:f::11/128".parse().unwrap()].into());
        assert_eq!(
            observed.exported[&exported[0]],
            ExportedRoute { interface: "Ethernet0".to_owned(), installed: true, advertised: true }
        );
    }

    #[test]
    fn unknown_vrfs_are_empty_and_missing_daemons_are_errors() {
        let vrfs = vrfs();
        let survey = Survey::new(&vrfs, &[]);
        let warning = r#"{"warning":"View/Vrf is unknown"}"#;
        let text = output(format!("{CONFIG}{{}}\n{warning}\n% VRF VrfBoot-p1 not found\n{{}}\n{{}}\n"));
        let (config, answers) = split_answers(&text, &survey.requests()).unwrap();
        let observed = survey.evaluate(config, &answers);
        assert_eq!(observed.routes.values().collect::<Vec<_>>(), [&VrfRoutes::default()]);

        let away = Output { text: CONFIG.to_owned(), errors: "bgpd is not running".to_owned() };
        let error = split_answers(&away, &survey.requests()).unwrap_err();
        assert_eq!(error.to_string(), "vtysh answered 0 of 5 requests: bgpd is not running");
        let short = output(format!("{CONFIG}{{}}\nwhat?\n"));
        let error = split_answers(&short, &survey.requests()).unwrap_err();
        assert!(error.to_string().ends_with("with: what?"), "{error}");
        let short = output(format!("{CONFIG}{{}}\n"));
        assert!(matches!(
            split_answers(&short, &survey.requests()),
            Err(FrrError::Incomplete { wanted: 5, found: 1, .. })
        ));
        assert!(split_answers(&output("% Unknown command: show\n".to_owned()), &survey.requests()).is_err());
        assert!(split_answers(&output(String::new()), &survey.requests()).is_err());
    }

    #[test]
    fn complaints_are_told_from_notes() {
        let notes = "% Configuration applied with notes\nStatic Route to ::/0 not installed currently because dependent config not fully available\n% No changes found to be committed!\n[12|bgpd] done\n";
        assert_eq!(complaint(notes), None);
        let text = format!("{notes}% Unknown command: foo bar\n");
        assert_eq!(complaint(&text).as_deref(), Some("% Unknown command: foo bar"));
        assert!(complaint("zebra is not running\n").is_some());
        assert!(is_lock_race("% Can't enter config; candidate datastore locked by another session"));
        assert!(is_lock_race("% command failed, could not lock candidate DS"));
        assert!(!is_lock_race("% Unknown command: foo bar"));
    }

    #[test]
    fn the_line_before_a_complaint_is_the_refused_one() {
        let requests =
            ["configure terminal", "vrf V", "ipv6 route ::/0 blackhole 254", "exit-vrf"].map(str::to_owned);
        let text = "leaf1# configure terminal\nleaf1(config)# vrf V\n\
            leaf1(config-vrf)# ipv6 route ::/0 blackhole 254\n% command failed, could not lock candidate DS\n";
        assert_eq!(echoed(text, &requests), &requests[..3]);
        assert!(echoed("% command failed, could not lock candidate DS\n", &requests).is_empty());
    }

    #[test]
    fn routes_of_the_vrf_itself_are_no_imports() {
        let table = serde_json::json!({"routes": {
            "2001:db8:1::/64": [{"valid": true}],
            "2001:db8:2::/64": [{"valid": true, "nhVrfName": "default"}],
        }});
        let routes = vrf_routes(&table, &Value::Null);
        assert_eq!(routes.imported, BTreeMap::from([("2001:db8:2::/64".parse().unwrap(), false)]));
    }

    #[test]
    fn best_paths_only_count_when_valid() {
        let path =
            |valid: bool| serde_json::json!({"paths": [{"valid": valid, "bestpath": {"overall": true}}]});
        assert!(has_best_path(&path(true)));
        assert!(!has_best_path(&path(false)));
        assert!(!has_best_path(&serde_json::json!({})) && !has_best_path(&Value::Null));
    }
}
