//! System calls that no safe wrapper offers.
