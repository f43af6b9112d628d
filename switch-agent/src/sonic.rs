//! What a SONiC host tells the containers of its services.

/// Variables that SONiC sets for every container it makes. `CONTAINER_NAME` alone is also somebody else's.
const SET_BY_SONIC: [&str; 3] = ["RUNTIME_OWNER", "NAMESPACE_ID", "SYSLOG_TARGET_IP"];

/// Name of the SONiC container that the process runs in: also that of the systemd service and of the row in
/// `FEATURE`. `None` anywhere else.
pub fn container() -> Option<String> {
    container_in(|name| std::env::var(name).ok())
}

fn container_in(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let name = variable("CONTAINER_NAME").filter(|name| !name.is_empty())?;
    SET_BY_SONIC.iter().any(|name| variable(name).is_some()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_of_sonic_is_known_by_more_than_its_name() {
        let named = |set: &'static [(&str, &str)]| {
            container_in(|name| {
                set.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned())
            })
        };
        let name = Some("switch-agent".to_owned());
        assert_eq!(named(&[("CONTAINER_NAME", "switch-agent"), ("NAMESPACE_ID", "")]), name);
        assert_eq!(named(&[("CONTAINER_NAME", "switch-agent"), ("RUNTIME_OWNER", "local")]), name);
        assert_eq!(named(&[("CONTAINER_NAME", "switch-agent")]), None);
        assert_eq!(named(&[("NAMESPACE_ID", ""), ("SYSLOG_TARGET_IP", "127.0.0.1")]), None);
        assert_eq!(named(&[("CONTAINER_NAME", ""), ("SYSLOG_TARGET_IP", "127.0.0.1")]), None);
    }
}
