//! `SecurityOpt`.

use executor::spec::SeccompProfile;

use super::Error;

/// What the options say.
#[derive(Debug, Clone, Default)]
pub struct SecurityOptions {
    /// `no-new-privileges`.
    pub no_new_privileges: bool,
    /// `seccomp=…`.
    pub seccomp: SeccompProfile,
}

impl SecurityOptions {
    /// Parses them; `apparmor=unconfined` and `label=disable` say what is so anyway.
    pub fn parse(options: &[String]) -> Result<Self, Error> {
        let mut result = Self::default();
        for option in options {
            let invalid = || Error::Invalid(format!("invalid --security-opt 1: {option:?}"));
            let pair = option.split_once('=').or_else(|| option.split_once(':'));
            match pair {
                None if option == "no-new-privileges" => result.no_new_privileges = true,
                None => return Err(invalid()),
                Some(("no-new-privileges", value)) => {
                    result.no_new_privileges = match value {
                        "true" | "1" => true,
                        "false" | "0" => false,
                        _ => return Err(invalid()),
                    }
                }
                Some(("seccomp", "unconfined")) => result.seccomp = SeccompProfile::Unconfined,
                Some(("seccomp", "builtin" | "default")) => result.seccomp = SeccompProfile::Default,
                Some(("seccomp", profile)) => {
                    serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(profile).map_err(
                        |error| Error::Invalid(format!("Decoding seccomp profile failed: {error}")),
                    )?;
                    result.seccomp = SeccompProfile::Custom(profile.to_owned());
                }
                Some(("apparmor", "unconfined")) | Some(("label", "disable")) => {}
                Some(("apparmor", _)) => return Err(Error::Unsupported("an AppArmor profile".into())),
                Some(("label", _)) => return Err(Error::Unsupported("an SELinux label".into())),
                Some(_) => return Err(invalid()),
            }
        }
        Ok(result)
    }
}
