//! Boot profiles for a single boot.

use std::fs;

use switch_agent_core::desired::{BootOnce, Profile};
use switch_agent_core::service::PortService;

use super::support::{Proxy, ask, service};

fn wanting(value: Option<&str>, template: Option<&str>) -> PortService {
    let mut service = service("Ethernet0", 0);
    service.context_mut().settings_mut().boot_kernel_url = Some("http://c/usual".to_owned());
    service.context_mut().settings_mut().boot_once = value.map(|value| {
        let profile = Profile {
            name: "rescue".to_owned(),
            kernel_url: Some("http://c/rescue".to_owned()),
            initrd_urls: Vec::new(),
            cmdline: None,
            template_file: template.map(str::to_owned),
            root_paths: Vec::new(),
        };
        Box::new(BootOnce { value: value.to_owned(), profile })
    });
    service
}

/// What the machine is told to boot: `usual`, `rescue`, or an error.
async fn booted(port: u16) -> String {
    let reply = ask(port, "GET /boot.ipxe", "", "").await;
    if reply.status != 200 {
        return reply.error();
    }
    let kernel = reply.body.lines().find_map(|line| line.strip_prefix("kernel --name kernel http://c/"));
    kernel.unwrap_or_default().split(' ').next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_one_shot_profile_is_for_one_boot() {
    let proxy = Proxy::new();
    let port =
        proxy.open("Ethernet0", |service| service.context = wanting(Some("rescue"), None).context).await;
    let set = async |proxy: &Proxy, port: u16, value: Option<&str>| {
        let mut service = wanting(value, None);
        service.listener.tcp_port = port;
        proxy.discovery.set(service).await.unwrap();
    };
    assert_eq!(booted(port).await, "rescue");
    assert_eq!(booted(port).await, "usual");
    set(&proxy, port, Some("rescue@again")).await;
    assert_eq!(booted(port).await, "rescue");
    assert_eq!(booted(port).await, "usual");
    set(&proxy, port, None).await;
    set(&proxy, port, Some("rescue@again")).await;
    assert_eq!(booted(port).await, "rescue", "the row was without it");
    // A process that starts anew knows.
    let again = Proxy::after(&proxy);
    let port = again
        .open("Ethernet0", |service| service.context = wanting(Some("rescue@again"), None).context)
        .await;
    assert_eq!(booted(port).await, "usual");
}

#[tokio::test]
async fn only_what_is_handed_out_is_used_up() {
    let proxy = Proxy::new();
    let template = proxy.directory.0.join("rescue.j2");
    let path = template.to_str().unwrap().to_owned();
    let port = proxy
        .open("Ethernet0", |service| service.context = wanting(Some("rescue"), Some(&path)).context)
        .await;
    assert_eq!(booted(port).await, "boot-template-unusable");
    fs::write(&template, "#!ipxe\nkernel --name kernel {{ kernel }} \n").unwrap();
    assert_eq!(booted(port).await, "rescue");
    assert_eq!(booted(port).await, "usual");
}

/// What cannot be recorded might be handed out twice.
#[tokio::test]
async fn nothing_is_handed_out_that_cannot_be_recorded() {
    let proxy = Proxy::new();
    // In the way of the file: nothing can be put in its place, whoever tries.
    fs::create_dir(proxy.directory.0.join("state/.boot-once.json.tmp")).unwrap();
    let port =
        proxy.open("Ethernet0", |service| service.context = wanting(Some("rescue"), None).context).await;
    assert_eq!(booted(port).await, "usual");
}
