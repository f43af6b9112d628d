//! A machine is installed from a disc that its BMC boots, given to a tenant, freed and installed again
//! (`labs/uefi/install`).

use std::fs;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::capture::{self, Event, Message};
use crate::cases::boot::expect_mac_at;
use crate::cases::uefi::script_names;
use crate::cases::{Case, cases};
use crate::failure::{Context, Result, ensure, fail};
use crate::http::Request;
use crate::lab::{API, CONVERGENCE, Lab, SOCKETS, Socket, run};
use crate::leaf::{CONFIG_DB, Leaf, STATE_DB};
use crate::wait;

/// The machine's network card (`labs/uefi/lib.sh`).
const MAC: &str = "52:54:00:00:00:09";
const UUID: &str = "4f2b1c4e-0000-4000-8000-000000000009";
/// Where its cable is.
const AT: Socket = SOCKETS[2];
const TENANT_VRF: &str = "VrfTenant";
/// The tenant's router on the port; `labs/uefi/install` has told the machine.
const TENANT_GATEWAY: &str = "2001:db8:7e7a::1/64";
/// Firmware, kernel and initial RAM disc in software emulation.
const START_MAX: Duration = Duration::from_secs(120);
/// Off for so long, the machine's next boot has a timeline of its own (10 s).
const NEW_BOOT: Duration = Duration::from_secs(12);
const TICK: Duration = Duration::from_millis(100);

pub(crate) fn cases() -> Vec<Case> {
    cases!("disc",
        420 s: a_machine_is_installed_from_a_disc_released_and_installed_again;
        180 s: a_disc_of_ipxe_boots_what_the_leaf_says,
            the_bmc_has_it_boot_over_http_once;
    )
}

/// What happened when, as this process saw it.
struct Story {
    began: Instant,
    lines: Vec<(Duration, String)>,
}

impl Story {
    fn begin() -> Self {
        Self { began: Instant::now(), lines: Vec::new() }
    }

    fn tell(&mut self, line: impl Into<String>) {
        self.lines.push((self.began.elapsed(), line.into()));
    }

    fn print(&self) {
        println!("   after     step");
        let mut last = Duration::ZERO;
        for (at, line) in &self.lines {
            let (after, step) = (at.as_secs_f64(), at.saturating_sub(last).as_secs_f64());
            println!("  {after:>6.1} s  {step:>6.1} s  {line}");
            last = *at;
        }
    }
}

/// The machine, by way of its BMC controller.
struct Server<'a> {
    lab: &'a Lab,
    out: &'a Path,
}

impl<'a> Server<'a> {
    fn of(lab: &'a Lab) -> Result<Self> {
        let out = lab.firmware.as_deref().context(|| "this lab has no machine with firmware".into())?;
        Ok(Self { lab, out })
    }

    fn leaf(&self) -> &'a Leaf {
        self.lab.leaf_of(&AT)
    }

    /// The BMC controller carries out these steps.
    fn order(&self, name: &str, steps: &[&str]) -> Result<()> {
        let orders = self.out.join("orders");
        let (new, order) = (orders.join(format!("new-{name}")), orders.join(format!("order-{name}")));
        fs::write(&new, steps.join("\n")).context(|| new.display().to_string())?;
        fs::rename(&new, &order).context(|| order.display().to_string())?;
        wait::until(wait::seconds(60), || {
            if let Ok(why) = fs::read_to_string(orders.join(format!("failed-{name}"))) {
                fail!("the BMC controller failed in {steps:?}: {}", why.trim());
            }
            ensure!(orders.join(format!("done-{name}")).exists(), "{steps:?} is not done");
            Ok(())
        })
    }

    fn start(&self, number: usize) -> PathBuf {
        self.out.join("machine").join(format!("boot-{number}"))
    }

    /// The number of the start that comes next.
    fn next_start(&self) -> Result<usize> {
        let machine = self.out.join("machine");
        let entries = fs::read_dir(&machine).context(|| machine.display().to_string())?;
        let starts = entries.flatten().filter(|it| it.file_name().to_string_lossy().starts_with("boot-"));
        Ok(starts.count() + 1)
    }

    fn console(&self, number: usize) -> String {
        let bytes = fs::read(self.start(number).join("serial.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits for words on the console of a start.
    fn says(&self, number: usize, words: &str) -> Result<()> {
        let deadline = Instant::now() + START_MAX;
        loop {
            let console = self.console(number);
            if console.contains(words) {
                return Ok(());
            }
            let broken = console.contains("FAILED") || console.contains("Kernel panic");
            if broken || Instant::now() > deadline {
                let tail: Vec<&str> = console.lines().rev().take(12).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                fail!("{words:?} is not on the console of start {number}: {}", tail.join("\n"));
            }
            thread::sleep(TICK);
        }
    }

    /// What the BMC knows of a start: what from, and how it ended.
    fn note(&self, number: usize) -> Result<Value> {
        let path = self.start(number).join("boot.json");
        let text = fs::read_to_string(&path).context(|| path.display().to_string())?;
        serde_json::from_str(&text).context(|| path.display().to_string())
    }

    fn events(&self, number: usize) -> Result<Vec<Event>> {
        capture::read(&self.start(number).join("wire.pcap"))
    }

    fn words(&self, name: &str) -> Result<String> {
        let path = self.out.join(name);
        Ok(fs::read_to_string(&path).context(|| path.display().to_string())?.trim().to_owned())
    }
}

/// `METHOD path` of the control API on behalf of its users.
fn api(method: &str, path: &str, body: &Value) -> Result<Value> {
    let request = Request { method, ..Request::post(path, body.to_string()) };
    request.send_unix(Path::new("/run/lab/api/control-api.sock"))?.expect(200)?.json()
}

fn registered() -> Result<Value> {
    let known = api("GET", "/machines", &Value::Null)?;
    let machine = known["machines"].as_array().and_then(|all| all.iter().find(|it| it["mac"] == MAC));
    machine.cloned().context(|| format!("{MAC} has not registered: {known}"))
}

/// The controller of tenants' networks: what the control API says of the leaf's ports, into CONFIG_DB, as
/// `config interface vrf bind`, `ip add` and their opposites do.
struct PortController<'a> {
    leaf: &'a Leaf,
}

impl PortController<'_> {
    fn base() -> String {
        format!("INTERFACE|{}", AT.port)
    }

    fn bound_to(&self) -> Result<Option<String>> {
        Ok(self.leaf.row(CONFIG_DB, &Self::base())?.get("vrf_name").cloned())
    }

    fn apply(&self) -> Result<()> {
        let ports = api("GET", "/switches/leaf1/ports", &Value::Null)?;
        let wanted = ports[AT.port].as_str();
        let bound = self.bound_to()?;
        match (wanted, bound.as_deref()) {
            (Some(vrf), bound) if bound != Some(vrf) => {
                let own = format!("{}|{}/64", Self::base(), AT.router());
                self.leaf.unconfigure(&[&own, &Self::base()])?;
                thread::sleep(TICK);
                self.leaf.configure(&Self::base(), &[("vrf_name", vrf)])?;
            }
            (Some(_), _) => {
                let address = format!("{}|{TENANT_GATEWAY}", Self::base());
                if self.leaf.row(CONFIG_DB, &address)?.is_empty() {
                    self.leaf.configure(&address, &[("NULL", "NULL")])?;
                }
            }
            (None, Some(TENANT_VRF)) => {
                let address = format!("{}|{TENANT_GATEWAY}", Self::base());
                self.leaf.unconfigure(&[&address, &Self::base()])?;
            }
            (None, _) => {}
        }
        Ok(())
    }

    /// Applies until the leaf's agent says that the port is in this phase, and CONFIG_DB says so too.
    fn until(&self, phase: &str, vrf: &str) -> Result<()> {
        wait::until(CONVERGENCE, || {
            self.apply()?;
            let bound = self.bound_to()?;
            ensure!(bound.as_deref() == Some(vrf), "{} is in {bound:?}", AT.port);
            if vrf == TENANT_VRF {
                let address = format!("{}|{TENANT_GATEWAY}", Self::base());
                ensure!(!self.leaf.row(CONFIG_DB, &address)?.is_empty(), "no gateway on {}", AT.port);
            }
            self.leaf.expect_phase(AT.port, phase)
        })
    }
}

fn a_machine_is_installed_from_a_disc_released_and_installed_again(lab: &Lab) -> Result<()> {
    let server = Server::of(lab)?;
    let leaf = server.leaf();
    let mut story = Story::begin();
    leaf.configure(&format!("BOOT_NETWORK_PARTITION|{}", AT.partition), &[("dhcp6", "disabled")])?;
    leaf.configure(&format!("VRF|{TENANT_VRF}"), &[("NULL", "NULL")])?;
    wait::until(CONVERGENCE, || {
        ensure!(!leaf.row(STATE_DB, &format!("VRF_TABLE|{TENANT_VRF}"))?.is_empty(), "no {TENANT_VRF}");
        leaf.converged()
    })?;
    let outcome = life_cycle(&server, &mut story);
    story.print();
    outcome
}

fn life_cycle(server: &Server<'_>, story: &mut Story) -> Result<()> {
    let leaf = server.leaf();
    let controller = PortController { leaf };
    story.began = Instant::now();

    server.order("first", &["insert installer.iso", "once Cd", "reset On"])?;
    AT.set_carrier(true)?;
    story.tell("Redfish: disc inserted, next start from it, power on");
    install(server, story, 1, "first")?;
    released(server, story, &controller, 2, "first")?;

    // Another tenant gets another image; the disc is still in the drive.
    api("DELETE", &format!("/machines/{MAC}"), &Value::Null)?;
    story.tell("the machine is freed");
    controller.until("ready", &AT.vrf())?;
    story.tell(format!("{} is back in {}", AT.port, AT.vrf()));
    server.order("second", &["once Cd", "reset ForceRestart"])?;
    story.tell("Redfish: next start from the disc, restart");
    install(server, story, 3, "second")?;
    released(server, story, &controller, 4, "second")?;

    server.order("end", &["reset ForceOff", "eject"])?;
    AT.set_carrier(false)?;
    story.tell("Redfish: power off, disc ejected");
    api("DELETE", &format!("/machines/{MAC}"), &Value::Null)?;
    controller.until("ready", &AT.vrf())?;
    leaf.unconfigure(&[&format!("VRF|{TENANT_VRF}")])?;
    wait::until(CONVERGENCE, || leaf.converged())?;
    story.tell("everything is as before");
    println!("$ switch-agent show timeline {}      # on leaf1", AT.port);
    print!("{}", run(&mut server.lab.agent_command(leaf, &["show", "timeline", AT.port]))?);
    Ok(())
}

/// Start `number` is that of the disc, which installs the image `name`.
fn install(server: &Server<'_>, story: &mut Story, number: usize, name: &str) -> Result<()> {
    wait::until(START_MAX, || server.note(number).map(drop))?;
    server.says(number, "s] machine ")?;
    story.tell(format!("start {number}: the disc runs"));
    server.says(number, "default router fe80::")?;
    story.tell("address by SLAAC, default router");
    server.says(number, "] config: {")?;
    story.tell("config of the discovery proxy at the default router");
    server.says(number, "] token of ")?;
    story.tell("token");
    wait::until(START_MAX, registered)?;
    let machine = registered()?;
    story.tell("registered with the control API");
    let wanted = json!({
        "switch": "leaf1", "port": AT.port, "partition": AT.partition, "mac": MAC, "machine_id": UUID
    });
    for (member, value) in wanted.as_object().into_iter().flatten() {
        ensure!(machine[member] == *value, "{member} of the registration is not {value}: {machine}");
    }
    ensure!(machine["inventory"]["disk_bytes"] == 64 << 20, "the inventory is {machine}");
    expect_mac_at(server.lab, MAC, &AT)?;

    server.says(number, "] registered")?;
    let allocation = json!({
        "hostname": format!("{name}-tenant"), "image_url": format!("http://[{API}]/{name}.img"),
        "image_sha256": server.words(&format!("{name}.sha256"))?, "vrf": TENANT_VRF
    });
    api("POST", &format!("/machines/{MAC}/allocation"), &allocation)?;
    story.tell(format!("a user allocates it with the {name} image"));
    server.says(number, "] allocated as ")?;
    story.tell("the machine knows");
    server.says(number, "] installed ")?;
    story.tell("image fetched and written");
    server.says(number, "] reported")?;
    ensure!(
        registered()?["installed"] == allocation["image_sha256"],
        "it is not reported: {}",
        registered()?
    );
    story.tell("reported");
    check_wire(server, number, name)
}

/// By SLAAC only, from the default router only, and the image past the switch's processor.
fn check_wire(server: &Server<'_>, number: usize, name: &str) -> Result<()> {
    let events = server.events(number)?;
    let dhcp6 = events.iter().filter(|event| matches!(event.message, Message::Dhcp6(_))).count();
    ensure!(dhcp6 == 0, "{dhcp6} DHCPv6 messages");
    let asked = |line: &str| -> Result<&Event> {
        let request = Message::HttpRequest(line.to_owned());
        events.iter().find(|event| event.message == request).context(|| format!("nobody said {line}"))
    };
    let config = asked("GET /v1/boot HTTP/1.1")?;
    ensure!(config.destination.is_unicast_link_local(), "{} was asked for the config", config.destination);
    let registration = asked("POST /api/v1/machines HTTP/1.1")?;
    ensure!(AT.prefix().contains(&registration.source), "it registered from {}", registration.source);
    let image = asked(&format!("GET /{name}.img HTTP/1.1"))?;
    let direct: (Ipv6Addr, bool) = (image.destination, AT.prefix().contains(&image.source));
    ensure!(direct == (API, true), "{} asked {} for the image", image.source, image.destination);
    Ok(())
}

/// The port goes to the tenant, and start `number`, of the disk, is the tenant's.
fn released(
    server: &Server<'_>,
    story: &mut Story,
    controller: &PortController<'_>,
    number: usize,
    name: &str,
) -> Result<()> {
    controller.until("foreign", TENANT_VRF)?;
    story.tell(format!("{} is in {TENANT_VRF}", AT.port));
    wait::until(START_MAX, || server.note(number).map(drop))?;
    let (disc, disk) = (server.note(number - 1)?, server.note(number)?);
    ensure!(disc["source"] == "Cd" && disc["ended"] == "guest-reset", "the disc's start was {disc}");
    ensure!(disk["source"] == "None", "the disc was to be started once: {disk}");
    server.says(number, &server.words(&format!("{name}.words"))?)?;
    story.tell(format!("start {number}: the {name} image runs from the disk"));
    server.says(number, "tenant network: reached")?;
    story.tell("the tenant's router answers");
    server.says(number, "boot network: ")?;
    let console = server.console(number);
    let said = console.lines().find(|line| line.starts_with("boot network:")).unwrap_or_default();
    ensure!(said.trim() == "boot network: gone", "the installed machine says {said:?}");
    story.tell("the boot network is out of its reach");
    let row = controller.bound_to()?;
    ensure!(row.as_deref() == Some(TENANT_VRF), "{} went to {row:?}", AT.port);
    Ok(())
}

/// A disc with nothing but iPXE, as it is built by everybody: DHCPv6 of the leaf tells it of the script.
fn a_disc_of_ipxe_boots_what_the_leaf_says(lab: &Lab) -> Result<()> {
    let server = Server::of(lab)?;
    let leaf = server.leaf();
    let kernel = format!("http://[{API}]/kernel.efi");
    let row = format!("BOOT_NETWORK_PARTITION|{}", AT.partition);
    leaf.configure(&row, &[("dhcp6", "enabled"), ("boot_kernel_url", &kernel)])?;
    script_names(lab, leaf, &kernel)?;
    thread::sleep(NEW_BOOT);
    let mut story = Story::begin();
    let number = server.next_start()?;
    server.order("ipxe", &["reset ForceOff", "eject", "insert ipxe.iso", "once Cd", "reset On"])?;
    AT.set_carrier(true)?;
    story.tell("Redfish: disc with iPXE inserted, next start from it, power on");
    let told = (|| {
        server.says(number, "iPXE")?;
        story.tell("iPXE runs");
        let place = format!("Boot network of leaf{}, port {}", AT.leaf, AT.port);
        server.says(number, &place)?;
        story.tell("the leaf's script runs");
        server.says(number, &server.words("kernel.words")?)?;
        story.tell("the kernel that it names runs");
        Ok(())
    })();
    story.print();
    AT.set_carrier(false)?;
    server.order("ipxe-end", &["reset ForceOff", "eject"])?;
    told
}

/// No disc at all: the firmware fetches its program itself, though there is a system on the disk.
fn the_bmc_has_it_boot_over_http_once(lab: &Lab) -> Result<()> {
    let server = Server::of(lab)?;
    let leaf = server.leaf();
    leaf.configure(&format!("BOOT_NETWORK_PARTITION|{}", AT.partition), &[("dhcp6", "enabled")])?;
    wait::until(CONVERGENCE, || leaf.converged())?;
    thread::sleep(NEW_BOOT);
    let mut story = Story::begin();
    let number = server.next_start()?;
    server.order("http", &["reset ForceOff", "eject", "once UefiHttp", "reset On"])?;
    AT.set_carrier(true)?;
    story.tell("Redfish: next start by UEFI HTTP, power on");
    let told = (|| {
        server.says(number, &server.words("x64.words")?)?;
        story.tell("the program that DHCPv6 of the leaf names runs");
        wait::until(START_MAX, || {
            let note = server.note(number)?;
            ensure!(note["ended"] == "guest-shutdown", "the start was {note}");
            ensure!(note["source"] == "UefiHttp", "the start was {note}");
            Ok(())
        })?;
        let events = server.events(number)?;
        let get = Message::HttpRequest("GET /x64.efi HTTP/1.1".into());
        let get = events.iter().find(|event| event.message == get);
        let get = get.context(|| "nobody asked for /x64.efi".into())?;
        ensure!(get.destination == API && AT.prefix().contains(&get.source), "{} asked", get.source);
        Ok(())
    })();
    story.print();
    AT.set_carrier(false)?;
    told
}
