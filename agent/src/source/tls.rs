//! HTTPS: the certificates that are trusted, and a sentence for each way in which one is not.

use crate::base::console;
use crate::config::Access;
use rustls::CertificateError;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// The fault of a certificate or of the handshake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsFault {
    /// Its time is over.
    #[error("the server's certificate expired on {ended}, and this machine's clock says {now}")]
    Expired {
        /// The last valid day.
        ended: String,
        /// Today, as far as we know.
        now: String,
    },
    /// Its time has not come: nearly always a clock that is behind.
    #[error(
        "the server's certificate is valid from {begins} only, and this machine's clock says {now}: the clock is wrong"
    )]
    ClockBehind {
        /// The first valid day.
        begins: String,
        /// Today, as far as we know.
        now: String,
    },
    /// It speaks for another host.
    #[error("the server's certificate is for another host: {details}")]
    WrongHost { details: String },
    #[error("the server's certificate was signed by an authority that is not trusted here")]
    UnknownAuthority,
    #[error("TLS failed: {0}")]
    Other(String),
}

impl TlsFault {
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Expired { .. } => {
                "Renew the certificate, or set this machine's clock if that date is not today's"
            }
            Self::ClockBehind { .. } => "Set this machine's clock in its firmware, or use http://",
            Self::WrongHost { .. } => "Use the host name the certificate was made for",
            Self::UnknownAuthority => {
                "Add the authority's certificate to the initramfs and name it with inetboot.ca=/PATH.pem"
            }
            Self::Other(_) => "Check that the port speaks HTTPS with TLS 1.2 or newer, or use http://",
        }
    }
}

impl From<&rustls::Error> for TlsFault {
    fn from(error: &rustls::Error) -> Self {
        let rustls::Error::InvalidCertificate(fault) = error else {
            return Self::Other(error.to_string());
        };
        let now = date(SystemTime::now());
        let day = |time: &rustls::pki_types::UnixTime| date(UNIX_EPOCH + Duration::from_secs(time.as_secs()));
        match fault {
            CertificateError::ExpiredContext { not_after, .. } => {
                Self::Expired { ended: day(not_after), now }
            }
            CertificateError::NotValidYetContext { not_before, .. } => {
                Self::ClockBehind { begins: day(not_before), now }
            }
            CertificateError::NotValidForNameContext { expected, presented } => Self::WrongHost {
                details: format!("{} is not among {}", expected.to_str(), presented.join(", ")),
            },
            CertificateError::UnknownIssuer => Self::UnknownAuthority,
            other => Self::Other(other.to_string()),
        }
    }
}

/// The reason why a CA file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("cannot read the CA certificates in {path}")]
    Unreadable {
        path: String,
        #[source]
        error: std::io::Error,
    },
    #[error("{path} holds no PEM certificate")]
    Empty { path: String },
}

/// Certificates to trust, as PEM text; `None` for Mozilla's roots.
pub fn read_ca(access: &Access) -> Result<Option<Vec<u8>>, CaError> {
    let Some(path) = &access.ca else { return Ok(None) };
    let shown = path.display().to_string();
    let pem = std::fs::read(path).map_err(|error| CaError::Unreadable { path: shown.clone(), error })?;
    if certificates(&pem).is_empty() {
        return Err(CaError::Empty { path: shown });
    }
    Ok(Some(pem))
}

/// TLS settings that trust `ca` alone, or Mozilla's roots.
pub fn settings(ca: Option<&[u8]>) -> TlsConfig {
    let roots = match ca {
        None => RootCerts::WebPki,
        Some(pem) => RootCerts::new_with_certs(&certificates(pem)),
    };
    TlsConfig::builder()
        .root_certs(roots)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build()
}

fn certificates(pem: &[u8]) -> Vec<Certificate<'static>> {
    let mut certificates = Vec::new();
    for item in parse_pem(pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(error) => console::say(&format!("  a CA certificate is passed over: {error}")),
        }
    }
    certificates
}

/// `2026-11-21`, after Howard Hinnant's `civil_from_days`.
fn date(time: SystemTime) -> String {
    let days = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64 / 86_400;
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_the_calendars() {
        let at = |seconds| date(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01");
        assert_eq!(at(951_782_400), "2000-02-29");
        assert_eq!(at(1_795_219_200), "2026-11-21");
    }

    #[test]
    fn a_ca_file_without_a_certificate_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, "nothing").unwrap();
        let error = read_ca(&Access { ca: Some(path), ..Access::default() }).unwrap_err();
        assert!(error.to_string().contains("ca.pem holds no PEM certificate"));
    }
}
