"""The load generator that the published figures come from: `headrace bench`.

Raw sockets, packets encoded once, every message's sequence number checked by numpy strides; servers found on the
machine take turns with Headrace. Needs the extra `headrace[bench]`. The commands are `devices.bench.cli.app`.
"""
