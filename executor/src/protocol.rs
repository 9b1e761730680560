//! What daemon and shim say to each other, and the files of a shim's directory.
