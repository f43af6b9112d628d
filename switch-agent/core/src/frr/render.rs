//! The complete wanted configuration as text, from Jinja2 templates.
//!
//! Rendering is for people and for whoever merges the text into frr.conf; what the agent itself applies is
//! the delta. The built-in templates and the delta agree (tested).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv6Net;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;

use super::wanted::{Wanted, export_routes};
use super::{FrrSpec, prefix_list_name, route_map_name};
use crate::map::IntoMap;
use crate::name::{PortName, VrfName};

/// The template that is rendered; it includes the others.
pub const MAIN_TEMPLATE: &str = "boot-network.conf.j2";

const BUILT_IN: [(&str, &str); 4] = [
    (MAIN_TEMPLATE, include_str!("../../../../frr-templates/boot-network.conf.j2")),
    ("policy.conf.j2", include_str!("../../../../frr-templates/policy.conf.j2")),
    ("routes.conf.j2", include_str!("../../../../frr-templates/routes.conf.j2")),
    ("bgp.conf.j2", include_str!("../../../../frr-templates/bgp.conf.j2")),
];

/// Upper bound on template work, in engine instructions: some 400 per port.
const FUEL: u64 = 2_000_000;

#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    #[error("template {name} does not parse")]
    Parse {
        name: String,
        #[source]
        source: minijinja::Error,
    },
    #[error("template {name} does not render")]
    Render {
        name: &'static str,
        #[source]
        source: minijinja::Error,
    },
}

/// Template sources by name: the built-in ones, each replaceable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Templates(BTreeMap<String, String>);

impl Default for Templates {
    fn default() -> Self {
        Templates(BUILT_IN.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).into_map())
    }
}

impl Templates {
    /// Replaces or adds a template. `name` is its file name.
    pub fn insert(&mut self, name: String, source: String) {
        self.0.insert(name, source);
    }

    fn render(&self, context: &impl Serialize) -> Result<String, RenderError> {
        let mut environment = Environment::new();
        let failed = |source| RenderError::Render { name: MAIN_TEMPLATE, source };
        // As sonic-cfggen sets Jinja2 up, but an undefined variable is an error, not an empty string.
        let mut syntax = SyntaxConfig::builder();
        syntax.trim_blocks(true).keep_trailing_newline(true);
        environment.set_syntax(syntax.build().map_err(failed)?);
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_fuel(Some(FUEL));
        for (name, source) in &self.0 {
            environment
                .add_template(name, source)
                .map_err(|source| RenderError::Parse { name: name.clone(), source })?;
        }
        environment.get_template(MAIN_TEMPLATE).map_err(failed)?.render(Serde(context)).map_err(failed)
    }
}

/// What templates see. `frr-templates/README.md` is its description.
#[derive(Debug, Serialize)]
struct Context<'a> {
    asn: u32,
    router_id: Option<Ipv4Addr>,
    vrfs: Vec<VrfContext<'a>>,
    leak_vrfs: Vec<LeakVrfContext<'a>>,
}

#[derive(Debug, Serialize)]
struct VrfContext<'a> {
    name: &'a VrfName,
    leak: bool,
    leak_vrf: &'a str,
    leak_prefixes: &'a [Ipv6Net],
    route_map: String,
    prefix_list: String,
}

#[derive(Debug, Serialize)]
struct LeakVrfContext<'a> {
    name: &'a str,
    ports: Vec<PortContext<'a>>,
}

#[derive(Debug, Serialize)]
struct PortContext<'a> {
    name: &'a PortName,
    vrf: &'a VrfName,
    prefix: Ipv6Net,
    /// The router's own address as a /128.
    router: Ipv6Net,
}

/// The whole wanted configuration as one `frr.conf` snippet.
///
/// # Errors
/// A template does not parse, uses an undefined variable, or takes too long.
pub fn render(
    spec: &FrrSpec,
    asn: u32,
    router_id: Option<Ipv4Addr>,
    templates: &Templates,
) -> Result<String, RenderError> {
    let wanted = Wanted::of(spec);
    let vrfs = spec.vrfs.iter().map(|(name, boot)| VrfContext {
        name,
        leak: wanted.imports.contains_key(name),
        leak_vrf: &boot.leak_vrf,
        leak_prefixes: &boot.leak_prefixes,
        route_map: route_map_name(name),
        prefix_list: prefix_list_name(name),
    });
    let ports_of = |leak_vrf: &str| -> Vec<PortContext<'_>> {
        let leaking = spec.vrfs.iter().filter(|(vrf, boot)| boot.leaks(vrf) && boot.leak_vrf == leak_vrf);
        let ports = leaking.flat_map(|(vrf, boot)| boot.ports.iter().map(move |entry| (vrf, entry)));
        ports
            .map(|(vrf, (name, prefix))| {
                let [own, router] = export_routes(vrf, name, prefix.trunc());
                PortContext { name, vrf, prefix: own.prefix, router: router.prefix }
            })
            .collect()
    };
    let leak_vrfs = wanted.routes.keys().map(|name| LeakVrfContext { name, ports: ports_of(name) });
    let context = Context { asn, router_id, vrfs: vrfs.collect(), leak_vrfs: leak_vrfs.collect() };
    templates.render(&context)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::frr::Running;
    use crate::frr::tests::spec;

    #[test]
    fn cases_of_the_template_folder() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../frr-templates/cases");
        let mut cases = 0;
        for case in std::fs::read_dir(folder).unwrap() {
            let case = case.unwrap().path();
            let input: serde_json::Value =
                serde_json::from_str(&std::fs::read_to_string(case.join("input.json")).unwrap()).unwrap();
            let rendered = Templates::default().render(&input).unwrap();
            let expected = std::fs::read_to_string(case.join("expected.conf")).unwrap();
            assert_eq!(rendered, expected, "{}", case.display());
            cases += 1;
        }
        assert!(cases >= 3);
    }

    #[test]
    fn the_rendered_text_is_the_wanted_set() {
        let spec = spec();
        let text = render(&spec, 65000, Some(Ipv4Addr::new(10, 0, 0, 1)), &Templates::default()).unwrap();
        let rendered = Running::parse(&text);
        let wanted = Wanted::of(&spec);
        for (leak_vrf, routes) in &wanted.routes {
            let in_text: Vec<_> =
                rendered.routes[leak_vrf].iter().map(|r| format!("ipv6 route {r}")).collect();
            let mut in_spec: Vec<_> = routes.iter().map(ToString::to_string).collect();
            in_spec.sort();
            assert_eq!(in_text, in_spec);
            let instance = &rendered.bgp[leak_vrf];
            assert!(wanted.networks[leak_vrf].iter().all(|network| instance.has_network(*network)));
        }
        for (vrf, leak_vrf) in &wanted.imports {
            let instance = &rendered.bgp[vrf.as_str()];
            assert_eq!(instance.imports().collect::<Vec<_>>(), [leak_vrf]);
            assert_eq!(instance.import_route_map(), Some(route_map_name(vrf).as_str()));
            // The import must never be read before its route-map.
            assert!(instance.ipv6[0].starts_with("import vrf route-map"));
            assert!(crate::frr::wanted::route_map_sound(&rendered, vrf));
        }
    }

    #[test]
    fn undefined_variables_and_bad_syntax_are_errors() {
        let mut templates = Templates::default();
        templates.insert("policy.conf.j2".to_owned(), "{{ nonsense }}".to_owned());
        assert!(matches!(render(&spec(), 1, None, &templates), Err(RenderError::Render { .. })));
        templates.insert("policy.conf.j2".to_owned(), "{% if %}".to_owned());
        let error = render(&spec(), 1, None, &templates).unwrap_err();
        assert_eq!(error.to_string(), "template policy.conf.j2 does not parse");
    }

    #[test]
    fn endless_templates_end() {
        let mut templates = Templates::default();
        let source = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
        templates.insert("policy.conf.j2".to_owned(), source.to_owned());
        assert!(matches!(render(&spec(), 1, None, &templates), Err(RenderError::Render { .. })));
    }
}
