//! The PKI from outside: real files, real handshakes. Every key is made when the test runs.

mod pki {
    mod authority;
    mod bed;
    mod handshake;
    mod material;
    mod reload;
    mod signed;
    mod swap;
}
