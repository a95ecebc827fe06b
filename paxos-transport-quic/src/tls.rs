//! Mutual TLS 1.3 with pinned keys.
//!
//! Owns: who is believed to be which replica, and the TLS configurations that ask. Reads the roster,
//! and which clients are let in, at each handshake, so that a change of membership needs no new configuration.
//! Invariants:
//! 1. A handshake completes only with a key that is pinned, and proven by its signature.
//! 2. A dialled peer proves the very replica that was dialled.
//! 3. No tickets, no resumption, no early data: a resumed session would skip invariant 1, and early
//!    data could be replayed.
//!
//! Source: RFC 8446; RFC 7469 §2.4.

use core::fmt::{self, Write as _};
use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use paxos_core::ids::ReplicaId;
use paxos_core::membership::{KeyPin, Member, Membership};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, ServerConfig};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    PeerIncompatible, SignatureScheme,
};

use crate::admission::SharedClients;
use crate::identity::Identity;

/// The name in every certificate and every handshake. It proves nothing: keys do.
pub(crate) const SERVER_NAME: &str = "replica.paxos.internal";
/// The connection that carries the control and log lanes.
pub(crate) const ALPN_MAIN: &[u8] = b"paxos/1";
/// The connection that carries the bulk lane.
pub(crate) const ALPN_BULK: &[u8] = b"paxos-bulk/1";
/// The connection of a client that is not a replica. No port takes both this and the two above.
pub(crate) const ALPN_CLIENT: &[u8] = b"paxos-client/1";

/// Who may connect, and where they can be reached.
#[derive(Debug)]
pub(crate) struct Roster {
    owner_by_pin: BTreeMap<KeyPin, ReplicaId>,
    addresses: BTreeMap<ReplicaId, Vec<String>>,
}

/// Why a membership cannot serve this transport.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RosterError {
    /// The member has no key pinned, so nobody could prove to be it.
    NoKey(ReplicaId),
    /// Two members have the same key pinned.
    SharedKey(ReplicaId, ReplicaId),
}

impl fmt::Display for RosterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKey(id) => write!(f, "{id} has no key pinned: nobody could prove to be it"),
            Self::SharedKey(one, other) => write!(f, "{one} and {other} have the same key pinned"),
        }
    }
}

impl std::error::Error for RosterError {}

impl Roster {
    pub(crate) fn new(membership: &Membership) -> Result<Self, RosterError> {
        Self::of(membership.members())
    }

    pub(crate) fn of<'a>(
        members: impl IntoIterator<Item = &'a Member>,
    ) -> Result<Self, RosterError> {
        let mut owner_by_pin = BTreeMap::new();
        let mut addresses = BTreeMap::new();
        for member in members {
            if member.keys.is_empty() {
                return Err(RosterError::NoKey(member.id));
            }
            for pin in &member.keys {
                match owner_by_pin.insert(*pin, member.id) {
                    Some(other) if other != member.id => {
                        return Err(RosterError::SharedKey(other, member.id));
                    }
                    Some(_) | None => {}
                }
            }
            addresses.insert(member.id, member.addresses.clone());
        }
        Ok(Self { owner_by_pin, addresses })
    }

    pub(crate) fn owner(&self, pin: &KeyPin) -> Option<ReplicaId> {
        self.owner_by_pin.get(pin).copied()
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = ReplicaId> {
        self.addresses.keys().copied()
    }

    pub(crate) fn contains(&self, id: ReplicaId) -> bool {
        self.addresses.contains_key(&id)
    }

    pub(crate) fn addresses(&self, id: ReplicaId) -> &[String] {
        self.addresses.get(&id).map_or(&[], Vec::as_slice)
    }
}

/// The roster that is in force, shared by verifiers, dialers and links.
#[derive(Clone, Debug)]
pub(crate) struct SharedRoster(Arc<RwLock<Arc<Roster>>>);

impl SharedRoster {
    pub(crate) fn new(roster: Roster) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(roster))))
    }

    pub(crate) fn current(&self) -> Arc<Roster> {
        let roster = self.0.read().expect("no holder of this lock panics");
        Arc::clone(&roster)
    }

    pub(crate) fn replace(&self, roster: Roster) {
        *self.0.write().expect("no holder of this lock panics") = Arc::new(roster);
    }
}

/// The first bytes of a pin, for people.
pub(crate) fn fingerprint(pin: &KeyPin) -> String {
    pin[..6].iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes every text");
        text
    })
}

/// SHA-256 of the certificate's subject public key info.
pub(crate) fn pin_of(certificate: &CertificateDer<'_>) -> Result<KeyPin, Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    let suite = TLS13_AES_128_GCM_SHA256
        .tls13()
        .ok_or_else(|| Error::General("the suite named TLS 1.3 is not one".into()))?;
    let digest = suite.common.hash_provider.hash(&parsed.subject_public_key_info());
    KeyPin::try_from(digest.as_ref()).map_err(|_| Error::General("SHA-256 has 32 bytes".into()))
}

/// The TLS configuration for those who dial us, with one of these protocols.
pub(crate) fn server_config(
    identity: &Identity,
    trust: Trust,
    alpn: &[&[u8]],
) -> Result<QuicServerConfig, Error> {
    let provider = provider();
    let verifier = Arc::new(Verifier { trust, provider: Arc::clone(&provider) });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![identity.certificate()], identity.private_key())?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    QuicServerConfig::try_from(config)
        .map_err(|_| Error::General("the provider lacks QUIC's initial cipher suite".into()))
}

/// The TLS configuration for dialling `expected`.
pub(crate) fn client_config(
    identity: &Identity,
    roster: &SharedRoster,
    expected: ReplicaId,
    alpn: &[u8],
) -> Result<QuicClientConfig, Error> {
    let provider = provider();
    let trust = Trust::Members { roster: roster.clone(), expected: Some(expected) };
    let verifier = Arc::new(Verifier { trust, provider: Arc::clone(&provider) });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(vec![identity.certificate()], identity.private_key())?;
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    QuicClientConfig::try_from(config)
        .map_err(|_| Error::General("the provider lacks QUIC's initial cipher suite".into()))
}

/// Named in full everywhere, so that no process-wide default is read or set.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Whose key is believed.
#[derive(Clone, Debug)]
pub(crate) enum Trust {
    /// One that the roster pins, for any replica or for one.
    Members { roster: SharedRoster, expected: Option<ReplicaId> },
    /// That of a client that is let in.
    Clients(SharedClients),
}

#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

/// Said in the handshake; both sides put it into words for people.
#[derive(Debug)]
struct PinRefused(String);

impl fmt::Display for PinRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PinRefused {}

impl Verifier {
    fn judge(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let pin = pin_of(certificate)?;
        let refused = match &self.trust {
            Trust::Members { roster, expected } => {
                match (roster.current().owner(&pin), *expected) {
                    (Some(_), None) => return Ok(()),
                    (Some(owner), Some(expected)) if owner == expected => return Ok(()),
                    (Some(owner), Some(expected)) => {
                        format!("its key is that of {owner}, not of {expected}")
                    }
                    (None, _) => {
                        format!("its key {} is not pinned for any member", fingerprint(&pin))
                    }
                }
            }
            Trust::Clients(clients) if clients.lets_in(&pin) => return Ok(()),
            Trust::Clients(_) => {
                format!("its key {} is not that of a client who is let in", fingerprint(&pin))
            }
        };
        let other = OtherError(Arc::new(PinRefused(refused)));
        Err(Error::InvalidCertificate(CertificateError::Other(other)))
    }

    fn verify(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn tls12<T>() -> Result<T, Error> {
    Err(PeerIncompatible::Tls12NotOffered.into())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}
