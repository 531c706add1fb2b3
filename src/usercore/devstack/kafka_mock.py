"""librdkafka's mock cluster as a process of its own: a real TCP broker, in memory, bounded, gone with the process."""

import signal
import sys
from pathlib import Path

from confluent_kafka import Producer


def main() -> None:
    """Write the brokers' addresses into the file that the first argument names, then wait for a signal."""
    file = Path(sys.argv[1])
    producer = Producer({"test.mock.num.brokers": 1, "log_level": 0})
    brokers = producer.list_topics(timeout=10).brokers.values()
    making = file.with_suffix(".making")
    making.write_text(",".join(f"{broker.host}:{broker.port}" for broker in brokers))
    making.rename(file)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main()
