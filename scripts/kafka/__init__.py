"""Real Apache Kafka without Docker and without an installation: jars from Maven Central, Java from the machine.

`distribution` fetches the jars, `node` is one broker process, `metadata` asks a broker who is there, `laptop` keeps
brokers running between commands (`make kafka-up`). The tests build on the same parts (`tests/support/kafka.py`).
"""
