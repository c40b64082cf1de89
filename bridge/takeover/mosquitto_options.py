"""Mosquitto's options that have no equivalent here, each with why, and what to do instead (mosquitto.conf(5), 2.0).

Options that are translated are not in these tables: `mosquitto_conf.py` and `mosquitto_bridges.py` have them.
"""

from __future__ import annotations

USERS = "users are not available in this version: listen where only trusted devices are, or keep Mosquitto before it"
TLS = "TLS is not available in this version: put a TLS proxy (HAProxy, nginx stream) before a loopback address"
PSK = "TLS with pre-shared keys is not available: use certificates, at a TLS proxy before a loopback address"
PLUGINS = "plugins of Mosquitto are shared libraries and cannot be loaded"
RULES = "access rules are not available in this version: every client may read and write every topic"
LOGGING = "the log goes to standard error: let systemd or the shell store it (2>> FILE)"
DATA = "records go to the data directory as they are acknowledged; Mosquitto's database is not read"

RESTRICTING = frozenset(("acl_file", "auth_plugin", "plugin", "global_plugin", "plugin_use", "clientid_prefixes"))
"""Options by which not every client may do everything: without them a listener must not be open to a network."""

ALWAYS_SO: dict[str, tuple[str, ...]] = {
    "allow_zero_length_clientid": ("true",),
    "allow_duplicate_messages": ("false",),
    "queue_qos0_messages": ("false",),
    "retain_available": ("true",),
    "upgrade_outgoing_qos": ("false",),
    "set_tcp_nodelay": ("true",),
    "persistence": ("true",),
    "log_timestamp": ("true",),
    "use_username_as_clientid": ("false",),
    "use_identity_as_username": ("false",),
    "use_subject_as_username": ("false",),
    "require_certificate": ("false",),
    "auth_plugin_deny_special_chars": ("true",),
    "check_retain_source": ("false",),
    "max_qos": ("2",),
    "protocol": ("mqtt", "websockets"),
    "memory_limit": ("0",),
    "max_inflight_bytes": ("0",),
    "max_queued_bytes": ("0",),
}
"""Values that say what holds here anyway: nothing needs to be written, and nothing is lost."""

GENERAL: dict[str, str] = {
    "acl_file": RULES,
    "allow_duplicate_messages": "a client with overlapping subscriptions gets each message once, with the highest QoS",
    "allow_zero_length_clientid": "a client without an id is given one (MQTT 5 §3.1.3.1); that cannot be refused",
    "auth_plugin": PLUGINS,
    "plugin": PLUGINS,
    "global_plugin": PLUGINS,
    "plugin_load": PLUGINS,
    "plugin_use": PLUGINS,
    "auth_plugin_deny_special_chars": RULES,
    "auto_id_prefix": "ids that are given to clients are random and have no prefix",
    "autosave_interval": DATA,
    "autosave_on_changes": DATA,
    "check_retain_source": RULES,
    "clientid_prefixes": "any client id may connect: listen where only trusted devices are",
    "connection_messages": "what is logged follows [log] level",
    "global_max_clients": "count all clients as [mqtt] connections_max",
    "global_max_connections": "count all clients as [mqtt] connections_max",
    "log_facility": LOGGING,
    "log_timestamp": "every line has its time; with --log json it is a field of its own",
    "log_timestamp_format": "times are RFC 3339, in UTC, with milliseconds",
    "max_inflight_bytes": "messages on their way are bounded by their number: [mqtt] inflight_messages_max",
    "memory_limit": "each queue and cache has its own limit: docs/limits.md",
    "password_file": USERS,
    "per_listener_settings": "allow_anonymous is looked at for each listener; the rest holds for all",
    "persistence": 'records are on disk; for topics that must not be, a stream with storage = "memory"',
    "persistence_file": DATA,
    "persistence_location": f"{DATA}; `data` or --data says where that is",
    "pid_file": "the data directory's headrace.lock says which process has it; systemd needs no pid file",
    "psk_file": PSK,
    "queue_qos0_messages": "QoS 0 is not queued for clients that are away; they can ask for $replay/-1h/FILTER",
    "set_tcp_nodelay": "TCP_NODELAY is always set: each turn of the loop writes once",
    "upgrade_outgoing_qos": "a message is delivered with the lower of its own QoS and that of the subscription",
    "user": "start it as that user: User= in its systemd unit, or sudo -u",
    "websockets_log_level": "what is logged follows [log] level",
    "store_clean_interval": "Mosquitto itself ignores it since 1.5",
    "retry_interval": "Mosquitto itself ignores it since 1.5: messages are repeated after a reconnect only",
    "retain_expiry_interval": "retained messages go with their own message expiry interval (MQTT 5)",
    "enable_control_api": "the HTTP API stands in its place: /docs",
}
"""By option. One that is also in `ALWAYS_SO` has no equivalent with other values only."""

LISTENER: dict[str, str] = {
    "bind_interface": 'listen on an address: bind = "ADDRESS:PORT"',
    "http_dir": "the HTTP port serves the API and the dashboard; let a web server serve your files",
    "max_qos": "every QoS is taken; what a stream stores does not depend on it",
    "mount_point": "topics are what devices say; an [[ingest]] may put a prefix before them",
    "socket_domain": 'bind = "127.0.0.1:PORT" is IPv4 alone, "[::1]:PORT" IPv6 alone',
    "use_username_as_clientid": USERS,
    "websockets_headers_size": "a handshake may have [http] head_bytes_max bytes",
    "websockets_origin": "name the pages that may connect: [http] allowed_origins",
    "accept_protocol_versions": "3.1, 3.1.1 and 5.0 are taken on every listener",
    "enable_proxy_protocol": "the PROXY protocol is not read: the log has the proxy's address",
    "listener_auto_id_prefix": "ids that are given to clients are random and have no prefix",
    "cafile": TLS,
    "capath": TLS,
    "certfile": TLS,
    "ciphers": TLS,
    "ciphers_tls1.3": TLS,
    "crlfile": TLS,
    "dhparamfile": TLS,
    "keyfile": TLS,
    "require_certificate": TLS,
    "tls_engine": TLS,
    "tls_engine_kpass_sha1": TLS,
    "tls_keyform": TLS,
    "tls_version": TLS,
    "use_identity_as_username": TLS,
    "use_subject_as_username": TLS,
    "psk_hint": PSK,
}
TLS_OPTIONS = frozenset(name for name, text in LISTENER.items() if text in (TLS, PSK))
"""A listener that has one of them is encrypted: it must not become an open one."""
MAKES_TLS = frozenset(("certfile", "keyfile", "psk_hint"))

BRIDGE: dict[str, str] = {
    "bridge_alpn": "ALPN is not spoken to other brokers: use a port that speaks MQTT alone",
    "bridge_attempt_unsubscribe": "filters that are no longer configured are unsubscribed; no others",
    "bridge_bind_address": "the system chooses the address that a connection comes from",
    "bridge_capath": "put the certificates into one file: ca_file",
    "bridge_ciphers": "the system's OpenSSL chooses ciphers",
    "bridge_ciphers_tls1.3": "the system's OpenSSL chooses ciphers",
    "bridge_identity": PSK,
    "bridge_max_packet_size": "that broker says in MQTT 5 what it takes; larger messages are counted and passed over",
    "bridge_max_topic_alias": "no topic aliases are used to other brokers",
    "bridge_psk": PSK,
    "bridge_receive_maximum": "for what is taken: receive_maximum of [[ingest]]",
    "bridge_reload_type": "a changed [[ingest]] or [[egress]] waits for a restart",
    "bridge_require_ocsp": "OCSP is not asked for; a broker's certificate is always verified",
    "bridge_session_expiry_interval": "session_expiry_s of [[ingest]]",
    "bridge_tcp_keepalive": "a broker that is silent is found by MQTT's keep alive",
    "bridge_tcp_user_timeout": "a broker that is silent is found by MQTT's keep alive",
    "bridge_tls_use_os_certs": "without ca_file the system's certificates are trusted",
    "bridge_tls_version": "the system's OpenSSL chooses the version",
    "idle_timeout": "a connection to another broker is kept: what waits is in the log",
    "local_cleansession": "nothing local subscribes: the log is the queue",
    "local_clientid": "records that came by an [[ingest]] have the client id $ingest/NAME",
    "local_password": "nothing local needs to sign in",
    "local_username": "nothing local needs to sign in",
    "notification_topic": "watch /metrics: headrace_ingest_connected, headrace_egress_connected",
    "notifications": "watch /metrics: headrace_ingest_connected, headrace_egress_connected",
    "notifications_local_only": "watch /metrics: headrace_ingest_connected, headrace_egress_connected",
    "round_robin": "one address is connected to; give a name that stands for several",
    "start_type": "a connection is made at the start and again whenever it is lost",
    "threshold": "a connection to another broker is kept: what waits is in the log",
    "try_private": "this server connects as a client, not as a bridge",
}
BRIDGE_ALWAYS_SO: dict[str, tuple[str, ...]] = {
    "start_type": ("automatic",),
    "try_private": ("false",),
    "notifications": ("false",),
    "round_robin": ("false",),
    "bridge_attempt_unsubscribe": ("true", "false"),
    "bridge_insecure": ("false",),
    "bridge_outgoing_retain": ("true",),
    "cleansession": ("false",),
}
