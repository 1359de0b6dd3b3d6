//! The settings of sockets: defaults, the effective size of a frame, what is refused and warned of.

use std::time::Duration;

use super::*;

#[test]
fn sockets_have_their_defaults_with_the_built_in_upstream_too() {
    for embedded_mode in [false, true] {
        let sources = Sources {
            embedded_mode,
            ..sources(&[])
        };
        let Loaded { settings, .. } = load(&sources).unwrap();
        let socket = &settings.socket;
        assert!(socket.enabled && socket.tcp_listen.is_none());
        assert_eq!((socket.max_connections, socket.per_user), (10_000, 10));
        let times = [
            (socket.connect_timeout, 10_000),
            (socket.connack_timeout, 1_500),
            (socket.idle_timeout, 180_000),
            (socket.ping_interval, 45_000),
            (socket.write_timeout, 20_000),
        ];
        for (time, ms) in times {
            assert_eq!(time, Duration::from_millis(ms));
        }
        assert_eq!(settings.socket_frame_bytes(), 96 * 1024);
        assert!(settings.wukongim.tcp_addrs.is_empty());
    }
}

#[test]
fn a_frame_has_room_for_the_largest_payload() {
    let bytes = |frame: &str, payload: &str| {
        let env = [
            ("GATEWAY__SOCKET__FRAME_BYTES", frame),
            ("GATEWAY__LIMITS__PAYLOAD", payload),
        ];
        good(&env).settings.socket_frame_bytes()
    };
    assert_eq!(bytes("128KiB", "64KiB"), 128 * 1024);
    // 1,040 bytes are 1,388 in base64.
    assert_eq!(bytes("1KiB", "1KiB"), 1_388 + 2_048);
    assert_eq!(bytes("96KiB", "512KiB"), 699_072 + 2_048);
    assert!(bytes("1B", "512KiB") < 1024 * 1024, "WuKongIM's own limit");
}

#[test]
fn the_tcp_listener_needs_a_port_of_its_own() {
    for taken in ["0.0.0.0:8080", "127.0.0.1:9464", "[::]:8080"] {
        let said = bad(&sources(&[("GATEWAY__SOCKET__TCP_LISTEN", taken)]));
        let what = "must be another port than server.listen and server.ops_listen";
        assert_eq!(said, [format!("GATEWAY__SOCKET__TCP_LISTEN: {what}")]);
    }
    let apart = good(&[("GATEWAY__SOCKET__TCP_LISTEN", "127.0.0.1:5100")]);
    assert!(apart.settings.socket.tcp_listen.is_some());
}

#[test]
fn socket_ports_are_hosts_with_ports() {
    let set = |addresses| [("GATEWAY__WUKONGIM__TCP_ADDRS", addresses)];
    let addresses = good(&set("im-1:5100, [fd00::1]:5100")).settings;
    let expected = ["im-1:5100", "[fd00::1]:5100"];
    assert_eq!(addresses.wukongim.tcp_addrs, expected);
    for wrong in ["im-1", "tcp://im-1:5100", "im-1:5100,im-2:0"] {
        let said = bad(&sources(&set(wrong)));
        assert!(said[0].contains("must be a host and a port"), "{said:?}");
    }
}

#[test]
fn addresses_that_lead_past_the_gateway_or_are_not_told_are_warned_of() {
    let warned = |key: &str, env: &[(&str, &str)]| {
        let start = format!("{key}: ");
        let loaded = good(env);
        loaded.warnings.iter().any(|line| line.starts_with(&start))
    };
    let off = ("GATEWAY__SOCKET__ENABLED", "false");
    let ws = |url| ("WUKONGIM_WS_URL", url);
    for past in [
        "ws://im:5200",
        "wss://im/ws",
        "wss://im/api/v1/im/ws/",
        "wss://im/api/v1/im",
    ] {
        assert!(warned("public.ws_url", &[ws(past)]), "{past}");
        assert!(!warned("public.ws_url", &[ws(past), off]), "{past}");
    }
    for own in ["wss://im/api/v1/im/ws", "ws://im:8080/api/v1/im/ws?a=1"] {
        assert!(!warned("public.ws_url", &[ws(own)]), "{own}");
    }
    assert!(!warned("public.ws_url", &[]));
    assert!(warned("public.ws_url", &[off]), "WuKongIM answers it");

    let tcp = ("GATEWAY__SOCKET__TCP_LISTEN", "127.0.0.1:5100");
    let told = ("WUKONGIM_TCP_ADDR", "im:5100");
    assert!(warned("socket.tcp_listen", &[tcp]));
    for env in [vec![], vec![tcp, told], vec![tcp, off], vec![told]] {
        assert!(!warned("socket.tcp_listen", &env), "{env:?}");
    }
}
