//! Container ids and names.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::Error;

const ADJECTIVES: &[&str] = &[
    "agile",
    "amber",
    "ancient",
    "autumn",
    "bashful",
    "billowing",
    "blithe",
    "bold",
    "brave",
    "breezy",
    "bright",
    "brisk",
    "calm",
    "candid",
    "careful",
    "cheerful",
    "clever",
    "cool",
    "cosmic",
    "cozy",
    "crimson",
    "crisp",
    "curious",
    "daring",
    "dapper",
    "dazzling",
    "deft",
    "dreamy",
    "eager",
    "earnest",
    "easy",
    "elated",
    "fair",
    "fancy",
    "fearless",
    "festive",
    "fleet",
    "fluent",
    "fond",
    "frosty",
    "gallant",
    "gentle",
    "gleaming",
    "golden",
    "graceful",
    "grand",
    "happy",
    "hardy",
    "hasty",
    "hidden",
    "honest",
    "humble",
    "icy",
    "jolly",
    "jovial",
    "keen",
    "kind",
    "lively",
    "loyal",
    "lucid",
    "lucky",
    "mellow",
    "merry",
    "mighty",
    "misty",
    "modest",
    "nimble",
    "noble",
    "patient",
    "playful",
    "plucky",
    "polite",
    "proud",
    "quick",
    "quiet",
    "radiant",
    "ready",
    "restful",
    "rustic",
    "serene",
    "sharp",
    "shiny",
    "silent",
    "silver",
    "sincere",
    "smooth",
    "snowy",
    "solid",
    "spry",
    "steady",
    "sturdy",
    "sunny",
    "swift",
    "tender",
    "thrifty",
    "tidy",
    "tranquil",
    "upbeat",
    "vivid",
    "warm",
    "wise",
    "witty",
    "zesty",
];

const SURNAMES: &[&str] = &[
    "abel",
    "ampere",
    "archimedes",
    "babbage",
    "banach",
    "bardeen",
    "bayes",
    "becquerel",
    "bell",
    "bernoulli",
    "bohr",
    "boole",
    "bose",
    "boyle",
    "brahe",
    "cantor",
    "carnot",
    "cauchy",
    "cavendish",
    "celsius",
    "chandrasekhar",
    "cori",
    "coulomb",
    "curie",
    "dalton",
    "darwin",
    "descartes",
    "dijkstra",
    "dirac",
    "doppler",
    "einstein",
    "erdos",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "fermi",
    "feynman",
    "fibonacci",
    "fourier",
    "franklin",
    "galileo",
    "galois",
    "gauss",
    "germain",
    "godel",
    "goodall",
    "hamilton",
    "hawking",
    "heisenberg",
    "herschel",
    "hertz",
    "hilbert",
    "hopper",
    "hubble",
    "huygens",
    "hypatia",
    "joule",
    "kelvin",
    "kepler",
    "knuth",
    "kolmogorov",
    "lagrange",
    "lamarr",
    "laplace",
    "lavoisier",
    "leibniz",
    "linnaeus",
    "lorentz",
    "lovelace",
    "maxwell",
    "mcclintock",
    "meitner",
    "mendel",
    "mendeleev",
    "mirzakhani",
    "morse",
    "nash",
    "newton",
    "nightingale",
    "nobel",
    "noether",
    "ohm",
    "pascal",
    "pasteur",
    "pauli",
    "planck",
    "poincare",
    "ptolemy",
    "pythagoras",
    "ramanujan",
    "riemann",
    "ritchie",
    "rubin",
    "rutherford",
    "sagan",
    "schrodinger",
    "shannon",
    "sinoussi",
    "stokes",
    "tesla",
    "thompson",
    "torvalds",
    "turing",
    "volta",
    "watt",
    "wiles",
    "wright",
    "yalow",
];

/// 64 random hexadecimal digits. Ids of digits alone in their first twelve are left out, since
/// those would pass for numbers where they become host names.
pub fn new_id() -> String {
    let mut rng = rand::rng();
    loop {
        let id = hex::encode(rng.random::<[u8; 32]>());
        if !id[..12].bytes().all(|byte| byte.is_ascii_digit()) {
            return id;
        }
    }
}

/// A name such as `quiet_noether`; after a few attempts with a digit at its end.
pub fn random_name(attempt: u32) -> String {
    let mut rng = rand::rng();
    let adjective = ADJECTIVES.choose(&mut rng).expect("the list is not empty");
    let surname = SURNAMES.choose(&mut rng).expect("the list is not empty");
    match attempt {
        0..3 => format!("{adjective}_{surname}"),
        _ => format!("{adjective}_{surname}{}", rng.random_range(0..10_u32.pow(attempt.min(9) - 2))),
    }
}

/// Checks a name that a user gave; takes a leading slash off.
pub fn checked(name: &str) -> Result<&str, Error> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    let mut bytes = bare.bytes();
    let fine = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bare.len() >= 2
        && bare.len() <= 255
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    match fine {
        true => Ok(bare),
        false => Err(Error::Invalid(format!(
            "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_are_valid() {
        for attempt in 0..8 {
            let name = random_name(attempt);
            assert_eq!(checked(&name).unwrap(), name);
        }
    }

    #[test]
    fn bad_names_are_refused_in_dockers_words() {
        for bad in ["", "a", "-ab", "a b", "a/b", "ä1", "a\nb", &"x".repeat(300)] {
            assert!(checked(bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            checked("a b").unwrap_err().to_string(),
            "Invalid container name (a b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        );
        assert_eq!(checked("/web").unwrap(), "web");
    }
}
