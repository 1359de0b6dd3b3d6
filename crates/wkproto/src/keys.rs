//! Key agreement and sealing as the protocol has them. It is weak by design: the server's key is not authenticated, one initialisation
//! vector serves the whole connection, and ids and tokens are in the clear. TLS around it is what protects.

use aws_lc_rs::{
    agreement::{self, PrivateKey, UnparsedPublicKey, X25519},
    cipher::{
        AES_128, DecryptionContext, EncryptionContext, PaddedBlockDecryptingKey,
        PaddedBlockEncryptingKey, UnboundCipherKey,
    },
    iv::FixedLength,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use md5::{Digest as _, Md5};

use super::{Recv, Send};

/// What goes wrong with keys and sealed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No base64 of 32 bytes, or a point that gives no shared secret.
    #[error("invalid public key")]
    PublicKey,
    /// No private key of 32 bytes, or none could be made.
    #[error("invalid private key")]
    PrivateKey,
    /// Fewer than 16 bytes.
    #[error("salt too short")]
    Salt,
    /// Not sealed with this cipher.
    #[error("payload cannot be opened")]
    Sealed,
}

/// Whether this is a public key as CONNECT must have one: base64 of 32 bytes.
pub fn is_valid_public_key(text: &str) -> bool {
    decode_public_key(text).is_ok()
}

fn decode_public_key(text: &str) -> Result<[u8; 32], KeyError> {
    // A longer text is not decoded at all; 32 bytes are 44 characters.
    if text.len() != 44 {
        return Err(KeyError::PublicKey);
    }
    let bytes = BASE64_STANDARD
        .decode(text)
        .map_err(|_| KeyError::PublicKey)?;
    bytes.try_into().map_err(|_| KeyError::PublicKey)
}

/// One side's key pair for one connection; both sides are alike. Without `Debug`: a secret is never printed.
pub struct KeyPair {
    private: PrivateKey,
    public: String,
}

impl KeyPair {
    /// A new random pair.
    pub fn generate() -> Result<Self, KeyError> {
        let private = PrivateKey::generate(&X25519).map_err(|_| KeyError::PrivateKey)?;
        Self::new(private)
    }

    /// The pair of a known private key of 32 bytes: for recorded connections.
    pub fn from_private_key(bytes: &[u8]) -> Result<Self, KeyError> {
        let private =
            PrivateKey::from_private_key(&X25519, bytes).map_err(|_| KeyError::PrivateKey)?;
        Self::new(private)
    }

    fn new(private: PrivateKey) -> Result<Self, KeyError> {
        let public = private
            .compute_public_key()
            .map_err(|_| KeyError::PrivateKey)?;
        let public = BASE64_STANDARD.encode(public);
        Ok(Self { private, public })
    }

    /// The public key in base64, as CONNECT and CONNACK have it.
    pub fn public_key(&self) -> &str {
        &self.public
    }

    /// The cipher of a connection with this peer: its public key in base64, and the salt of CONNACK.
    pub fn agree(&self, peer_public_key: &str, salt: &str) -> Result<Cipher, KeyError> {
        let peer = UnparsedPublicKey::new(&X25519, decode_public_key(peer_public_key)?);
        let iv = salt.as_bytes().first_chunk().ok_or(KeyError::Salt)?;
        agreement::agree(&self.private, peer, KeyError::PublicKey, |shared| {
            let hash = md5_hex(&[BASE64_STANDARD.encode(shared).as_bytes()]);
            let key = hash.first_chunk().ok_or(KeyError::PublicKey)?;
            Ok(Cipher { key: *key, iv: *iv })
        })
    }
}

/// Seals and opens the payloads of one connection. Without `Debug`: a secret is never printed.
#[derive(Clone)]
pub struct Cipher {
    key: [u8; 16],
    iv: [u8; 16],
}

impl Cipher {
    /// Encrypts, and encodes in base64: what a payload has on the wire.
    pub fn seal(&self, plain: &[u8]) -> Vec<u8> {
        self.seal_parts(&[plain])
    }

    fn seal_parts(&self, parts: &[&[u8]]) -> Vec<u8> {
        let mut bytes = parts.concat();
        let sealed = UnboundCipherKey::new(&AES_128, &self.key)
            .and_then(PaddedBlockEncryptingKey::cbc_pkcs7)
            .and_then(|key| {
                let context = EncryptionContext::Iv128(FixedLength::from(self.iv));
                key.less_safe_encrypt(&mut bytes, context)
            });
        // Only sizes can be wrong, and both are of fixed size; were it otherwise, nothing must go out in plain text.
        if sealed.is_err() {
            bytes.clear();
        }
        BASE64_STANDARD.encode(bytes).into_bytes()
    }

    /// Decodes and decrypts.
    pub fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, KeyError> {
        let mut bytes = BASE64_STANDARD
            .decode(sealed)
            .map_err(|_| KeyError::Sealed)?;
        let length = UnboundCipherKey::new(&AES_128, &self.key)
            .and_then(PaddedBlockDecryptingKey::cbc_pkcs7)
            .and_then(|key| {
                let context = DecryptionContext::Iv128(FixedLength::from(self.iv));
                key.decrypt(&mut bytes, context).map(|plain| plain.len())
            })
            .map_err(|_| KeyError::Sealed)?;
        bytes.truncate(length);
        Ok(bytes)
    }

    /// The msgKey that this SEND must have, whatever it has: over number, id, channel and sealed payload.
    pub fn send_msg_key(&self, send: &Send<'_>) -> String {
        self.msg_key(&[
            send.client_seq.to_string().as_bytes(),
            send.client_msg_no.as_bytes(),
            send.channel_id,
            send.channel_type.to_string().as_bytes(),
            send.payload,
        ])
    }

    /// The msgKey that this RECV must have, whatever it has.
    pub fn recv_msg_key(&self, recv: &Recv<'_>) -> String {
        self.msg_key(&[
            recv.message_id.to_string().as_bytes(),
            recv.message_seq.to_string().as_bytes(),
            recv.client_msg_no.as_bytes(),
            recv.timestamp.to_string().as_bytes(),
            recv.from_uid,
            recv.channel_id,
            recv.channel_type.to_string().as_bytes(),
            recv.payload,
        ])
    }

    fn msg_key(&self, parts: &[&[u8]]) -> String {
        let hash = md5_hex(&[&self.seal_parts(parts)]);
        hash.iter().copied().map(char::from).collect()
    }
}

fn md5_hex(parts: &[&[u8]]) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hash = Md5::new();
    for part in parts {
        hash.update(part);
    }
    let mut hex = [0; 32];
    for (pair, byte) in hex.chunks_exact_mut(2).zip(hash.finalize()) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 0x0F)];
    }
    hex
}
