//! Which machine a gRPC request speaks of: the length-prefixed message of gRPC, and of its protobuf just
//! the fields that name machines.
//!
//! Protobuf lets a field occur again, and the last one counts. Here all occurrences have to name the same
//! machine: nothing that another parser may prefer gets past.

use super::MachineId;
use super::procedure::Procedure;

/// Compressed flag and length (gRPC over HTTP/2, "Length-Prefixed-Message").
pub const PREFIX_LEN: usize = 5;
/// Largest message, in bytes: the limit of gRPC's own servers.
pub const MESSAGE_LEN_MAX: usize = 4 << 20;
/// Events of one request.
const EVENTS_MAX: usize = 64;
/// Largest field number (protobuf encoding, "Message Structure").
const FIELD_MAX: u64 = (1 << 29) - 1;

/// Why a request's message is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageRefusal {
    #[error("the message is compressed, which nobody asked for")]
    Compressed,
    #[error("the body is not exactly one gRPC message")]
    Framing,
    #[error("the message is larger than 4 MiB")]
    TooLarge,
    #[error("the message is no protobuf")]
    Malformed,
    #[error("the message names no machine, or what it names is no UUID")]
    NoMachine,
    #[error("the message names more than one machine")]
    SeveralMachines,
}

/// The one message in the body of a unary or server-streaming request.
pub fn message(body: &[u8]) -> Result<&[u8], MessageRefusal> {
    let (prefix, message) = body.split_first_chunk::<PREFIX_LEN>().ok_or(MessageRefusal::Framing)?;
    let [compressed, length @ ..] = *prefix;
    match compressed {
        0 => {}
        1 => return Err(MessageRefusal::Compressed),
        _ => return Err(MessageRefusal::Framing),
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MESSAGE_LEN_MAX {
        return Err(MessageRefusal::TooLarge);
    }
    if message.len() == length { Ok(message) } else { Err(MessageRefusal::Framing) }
}

/// The machine that a request speaks for; `None` for the one procedure whose request names none.
pub fn machine(procedure: Procedure, body: &[u8]) -> Result<Option<MachineId>, MessageRefusal> {
    let message = message(body)?;
    match procedure {
        // No field is defined; one that a later version adds might name a machine.
        Procedure::SuperUserPassword if message.is_empty() => Ok(None),
        Procedure::SuperUserPassword => Err(MessageRefusal::Malformed),
        // map<string, MachineProvisioningEvent> events = 1: entries with the key as field 1.
        Procedure::Send => {
            let mut names = Vec::new();
            for (entries, event) in Fields(message).enumerate() {
                if entries >= EVENTS_MAX {
                    return Err(MessageRefusal::TooLarge);
                }
                if let (1, value) = event? {
                    names.push(name(value.ok_or(MessageRefusal::Malformed)?)?);
                }
            }
            the_same(names).map(Some)
        }
        // string uuid = 1, or machine_id = 1.
        Procedure::Dhcp
        | Procedure::Register
        | Procedure::Wait
        | Procedure::Report
        | Procedure::AbortReinstall => name(message).map(Some),
    }
}

/// The UUID in field 1 of a message.
fn name(message: &[u8]) -> Result<MachineId, MessageRefusal> {
    let mut names = Vec::new();
    for field in Fields(message) {
        if let (1, value) = field? {
            let text = value.and_then(|bytes| std::str::from_utf8(bytes).ok());
            let id = MachineId::parse(text.ok_or(MessageRefusal::Malformed)?);
            let id = id.ok_or(MessageRefusal::NoMachine)?;
            if names.last() != Some(&id) {
                names.push(id);
            }
        }
    }
    the_same(names)
}

fn the_same(names: Vec<MachineId>) -> Result<MachineId, MessageRefusal> {
    let mut names = names.into_iter();
    let first = names.next().ok_or(MessageRefusal::NoMachine)?;
    if names.all(|name| name == first) { Ok(first) } else { Err(MessageRefusal::SeveralMachines) }
}

/// The fields of a message: number, and content where it is length-delimited.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for at in 0..10 {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            // The tenth byte has room for one bit.
            if at == 9 && *byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u64, Option<&'a [u8]>)> {
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 || number > FIELD_MAX {
            return None;
        }
        let content = match tag & 7 {
            0 => self.varint().map(|_| None)?,
            1 => self.take(8).map(|_| None)?,
            2 => {
                let length = self.varint()?;
                Some(self.take(length)?)
            }
            5 => self.take(4).map(|_| None)?,
            // Groups are of proto2.
            _ => return None,
        };
        Some((number, content))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Option<&'a [u8]>), MessageRefusal>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field().ok_or(MessageRefusal::Malformed);
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// The body of a request whose only content is a machine's UUID in field 1, such as `Dhcp`.
pub fn naming(machine: &MachineId) -> Vec<u8> {
    let id = machine.as_str().as_bytes();
    // A UUID is 36 characters: every length here fits one byte.
    let length = u8::try_from(id.len()).unwrap_or(u8::MAX);
    let mut body = vec![0, 0, 0, 0, length + 2, 0x0a, length];
    body.extend_from_slice(id);
    body
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: &str = "00112233-4455-6677-8899-aabbccddeeff";
    const B: &str = "00112233-4455-6677-8899-aabbccddee00";

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2];
        let mut length = content.len();
        while length > 0x7f {
            bytes.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            length >>= 7;
        }
        bytes.push(u8::try_from(length).unwrap());
        bytes.extend_from_slice(content);
        bytes
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        let mut body = vec![0];
        body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        body.extend_from_slice(message);
        body
    }

    fn of(procedure: Procedure, parts: &[Vec<u8>]) -> Result<Option<String>, MessageRefusal> {
        machine(procedure, &framed(&parts.concat())).map(|id| id.map(|id| id.to_string()))
    }

    fn named(text: &str) -> Vec<u8> {
        field(1, text.as_bytes())
    }

    fn event(uuid: &str) -> Vec<u8> {
        let event = field(2, b"Preparing");
        field(1, &[named(uuid), field(2, &event)].concat())
    }

    #[test]
    fn the_machine_is_field_one() {
        use Procedure::{AbortReinstall, Dhcp, Register, Report, Wait};
        let a = Ok(Some(A.to_owned()));
        for procedure in [Dhcp, Register, Wait, Report, AbortReinstall] {
            assert_eq!(of(procedure, &[named(A)]), a);
            let hardware = field(2, &[7; 300]);
            // varint, fixed64 and fixed32 fields of any number are passed over, before and after.
            let others = [vec![0x18, 0xff, 0x01], vec![0x21, 1, 2, 3, 4, 5, 6, 7, 8], vec![0x2d, 1, 2, 3, 4]];
            let parts = [hardware, others[0].clone(), named(A), others[1].clone(), others[2].clone()];
            assert_eq!(of(procedure, &parts), a);
            assert_eq!(of(procedure, &[named(A), named(A)]), a);
        }
        assert_eq!(of(Procedure::SuperUserPassword, &[]), Ok(None));
        assert_eq!(of(Procedure::Send, &[event(A), event(A), field(9, b"x")]), a);
        let id = MachineId::parse(A).unwrap();
        assert_eq!(machine(Dhcp, &naming(&id)), Ok(Some(id)));
    }

    #[test]
    fn what_another_parser_may_read_differently_is_refused() {
        use MessageRefusal as R;
        use Procedure::{Register, Send, SuperUserPassword};
        let cases: [(Procedure, &[Vec<u8>], R); 16] = [
            // The last of several counts.
            (Register, &[named(A), named(B)], R::SeveralMachines),
            (Register, &[named(B), named(A), named(A)], R::SeveralMachines),
            (Send, &[event(A), event(B)], R::SeveralMachines),
            (Send, &[field(1, &[named(A), named(B)].concat())], R::SeveralMachines),
            (Register, &[], R::NoMachine),
            (Register, &[named("")], R::NoMachine),
            (Register, &[named("x")], R::NoMachine),
            (Register, &[field(2, A.as_bytes())], R::NoMachine),
            (Send, &[], R::NoMachine),
            (Send, &[field(1, &field(2, b"x"))], R::NoMachine),
            // Field 1 of another wire type, a group, field number 0, a torn field.
            (Register, &[vec![0x08, 1], named(A)], R::Malformed),
            (Register, &[named(A), vec![0x0b]], R::Malformed),
            (Register, &[named(A), vec![0x02, 0]], R::Malformed),
            (Register, &[named(A), vec![0x12, 9]], R::Malformed),
            (Register, &[vec![0x0a, 2, 0xff, 0xfe]], R::Malformed),
            (SuperUserPassword, &[named(A)], R::Malformed),
        ];
        for (procedure, parts, wanted) in cases {
            assert_eq!(of(procedure, parts), Err(wanted), "{procedure:?} {parts:?}");
        }
        // An overlong tag of field 1 is field 1 to every parser.
        let overlong = [&[0x8a, 0x00, 36], B.as_bytes()].concat();
        assert_eq!(of(Register, &[named(A), overlong]), Err(R::SeveralMachines));
        let endless = vec![0x8a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00];
        assert_eq!(of(Register, &[named(A), endless]), Err(R::Malformed));
        let many = vec![event(A); EVENTS_MAX + 1];
        assert_eq!(of(Send, &many), Err(R::TooLarge));
    }

    #[test]
    fn a_body_is_exactly_one_plain_message() {
        let good = framed(&named(A));
        assert!(message(&good).is_ok());
        let mut compressed = good.clone();
        compressed[0] = 1;
        assert_eq!(message(&compressed), Err(MessageRefusal::Compressed));
        compressed[0] = 2;
        assert_eq!(message(&compressed), Err(MessageRefusal::Framing));
        assert_eq!(message(&good[..good.len() - 1]), Err(MessageRefusal::Framing));
        assert_eq!(message(&good[..4]), Err(MessageRefusal::Framing));
        assert_eq!(message(&[&good[..], &framed(&named(B))].concat()), Err(MessageRefusal::Framing));
        assert_eq!(message(&[0, 0, 0x40, 0, 1]), Err(MessageRefusal::TooLarge));
    }

    proptest! {
        /// Whatever the bytes, the answer is one machine that stands in them, or a refusal.
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..7) {
            if let Ok(Some(id)) = machine(Procedure::ALL[at], &framed(&bytes)) {
                let text = id.as_str().as_bytes();
                prop_assert!(bytes.windows(text.len()).any(|window| window == text));
            }
        }
    }
}
