"""The MQTT broker: protocol engine, sessions, routing and listeners. It knows no HTTP, Kafka or FastAPI."""
