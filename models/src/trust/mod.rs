//! Whom a site believes: signatures and the configured keys enter, the signer leaves, or why the version cannot be used.
//!
//! A signature that is there must be right, whatever is required; `require` says what must have one.

mod signature;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::repository::Manifest;

pub use signature::{MOST_BYTES, PublicKey, Signature, SigningKey, Signs};

/// Name of a version's signature.
pub const SIGNATURE: &str = "signature.json";

/// What must be signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Require {
    /// Nothing: the shipped models are not.
    #[default]
    Never,
    /// What was not made here.
    Foreign,
    /// Every version.
    Always,
}

impl Require {
    /// By its name in the configuration.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "never" => Some(Self::Never),
            "foreign" => Some(Self::Foreign),
            "always" => Some(Self::Always),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Foreign => "foreign",
            Self::Always => "always",
        }
    }
}

/// The keys that are believed here, and what must be signed with one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    keys: Vec<(String, PublicKey)>,
    require: Require,
}

/// Who signed a version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Signer {
    /// Nobody.
    #[default]
    Nobody,
    /// The key of that name in the configuration.
    Trusted(String),
    /// Somebody, and no key is configured to hold it against.
    Unknown(String),
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("not signed"),
            Self::Trusted(name) => write!(f, "signed by `{name}`"),
            Self::Unknown(key) => write!(f, "signed with the key {key}, which nobody vouches for: `models.trusted_keys` is empty"),
        }
    }
}

/// Checks the name of a key.
///
/// # Errors
/// What is allowed.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    let named = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let right = (1..=64).contains(&name.len()) && name.chars().all(named);
    if right { Ok(()) } else { Err("a name has 1 to 64 letters, digits, `-`, `_`, `.`") }
}

impl Trust {
    /// From `NAME=KEY` each.
    ///
    /// # Errors
    /// Which entry is wrong, and what is allowed.
    pub fn new(keys: &[String], require: Require) -> Result<Self, String> {
        let mut known: Vec<(String, PublicKey)> = Vec::new();
        for entry in keys {
            let refuse = |why: &str| Err(format!("`{}`: {why}", signature::shortened(entry)));
            let Some((name, key)) = entry.split_once('=') else { return refuse("allowed is NAME=KEY") };
            if let Err(allowed) = check_name(name) {
                return refuse(allowed);
            }
            match PublicKey::parse(key) {
                Err(allowed) => return refuse(&allowed),
                Ok(key) if known.iter().any(|(other, public)| other == name || *public == key) => {
                    return refuse("this name or this key is there twice");
                }
                Ok(key) => known.push((name.to_string(), key)),
            }
        }
        if known.is_empty() && require != Require::Never {
            return Err(format!("none, and `require_signature` is `{}`: nothing could serve", require.name()));
        }
        Ok(Self { keys: known, require })
    }

    /// Whether what comes from there must be signed.
    pub const fn requires(&self, own: bool) -> bool {
        match self.require {
            Require::Never => false,
            Require::Foreign => !own,
            Require::Always => true,
        }
    }

    /// Who signed a bare file of a model.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn file(&self, model: &str, bytes: &[u8], signature: Option<&[u8]>) -> Result<Signer, String> {
        let Some(signature) = signature else { return self.unsigned(false) };
        let signature = Signature::parse(signature)?;
        if signature.signs != Signs::File {
            return Err("it is over a manifest; a bare file is signed with `telltale models sign MODEL --file FILE`".to_string());
        }
        self.signer(&signature, model, ("the file", blake3::hash(bytes).to_hex().as_str()))
    }

    /// Who signed a version: its signature, if it has one, and the digest of its manifest's bytes. A signature over the bare file must be
    /// over the one that the manifest names.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn version(&self, model: &str, (manifest, digest): (&Manifest, &str), signature: Option<&Signature>) -> Result<Signer, String> {
        let Some(signature) = signature else { return self.unsigned(manifest.origin.is_own()) };
        match signature.signs {
            Signs::Manifest => self.signer(signature, model, ("manifest.toml", digest)),
            Signs::File => {
                let file = manifest.kind.file();
                self.signer(signature, model, (file, manifest.files.get(file).map_or("", String::as_str)))
            }
        }
    }

    fn unsigned(&self, own: bool) -> Result<Signer, String> {
        if !self.requires(own) {
            return Ok(Signer::Nobody);
        }
        let require = self.require.name();
        Err(format!("it is not signed, and `models.require_signature` is `{require}`: sign it with the key of {}", self.names()))
    }

    fn signer(&self, signature: &Signature, model: &str, (what, digest): (&str, &str)) -> Result<Signer, String> {
        let key = signature.public_key()?;
        let known = self.keys.iter().find(|(_, public)| *public == key).map(|(name, _)| name);
        let who = known.map_or_else(|| key.to_base64(), |name| format!("`{name}`"));
        if known.is_none() && !self.keys.is_empty() {
            return Err(format!("it is signed with the key {who}, which is not trusted here; `models.trusted_keys` has {}", self.names()));
        }
        if signature.model != model {
            let other = signature::shortened(&signature.model);
            return Err(format!("{who} signed it for the model `{other}`, not for `{model}`: sign it for this one"));
        }
        if signature.digest != digest {
            let signed = signature::shortened(&signature.digest);
            return Err(format!(
                "{what} was changed after {who} signed it: its digest is {digest}, signed was {signed}; restore it or sign it again"
            ));
        }
        if !signature.is_genuine() {
            return Err(format!("its signature is not one of the key of {who}: it is damaged or forged; sign it again"));
        }
        Ok(known.map_or_else(|| Signer::Unknown(key.to_base64()), |name| Signer::Trusted(name.clone())))
    }

    fn names(&self) -> String {
        self.keys.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    }
}
