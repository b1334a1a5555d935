"""The other peers, one class each, set up to lose nothing, as fast as we found."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import socket
from pathlib import Path

import numpy as np
from stream_peer import Peer, retry


class Queue(Peer):
    name = "mp.Queue"

    def made(self):
        self.queue = multiprocessing.get_context("fork").Queue(self.plan.slots)

    def sender(self):
        put = self.queue.put
        return lambda data: put(data.copy())  # its thread pickles it later

    def receiver(self, spinning):
        return self.queue.get


class Pipe(Peer):
    name = "mp.Pipe"

    def made(self):
        self.out, self.into = multiprocessing.get_context("fork").Pipe(duplex=False)

    def sender(self):
        self.out.close()
        return self.into.send_bytes

    def receiver(self, spinning):
        self.into.close()
        get, own = self.out.recv_bytes_into, np.empty(max(self.plan.size // 8, 1), "u8")

        def receive():
            get(own)
            return own

        return receive

    def close(self):
        self.out.close()
        self.into.close()
        super().close()


class FasterFifo(Peer):
    name = "faster-fifo"
    needs, package = "faster_fifo", "faster-fifo"

    def made(self):
        from faster_fifo import Queue

        room = max(1 << 20, self.plan.slots * (self.plan.size + 64))
        self.queue = Queue(room, loads=bytes, dumps=lambda data: data.tobytes())

    def sender(self):
        put = self.queue.put
        return lambda data: put(data, timeout=60)

    def receiver(self, spinning):
        def messages():
            while True:
                yield from self.queue.get_many(timeout=60)

        return messages().__next__


class MomentumX(Peer):
    name = "momentumx, poll 0"
    needs = "momentumx"

    def sender(self):
        from momentumx import Producer

        size, slots = self.plan.size, min(self.plan.slots, 256)
        self.stream = Producer(
            self.id, size, slots, True, polling_interval=0, context=str(self.folder)
        )
        loan, copy, view = self.stream.next_to_send, np.copyto, np.frombuffer

        def send(data):
            buffer = loan()
            copy(view(buffer, "u8"), data)
            buffer.send(size)

        return send

    def receiver(self, spinning):
        from momentumx import Consumer, StreamUnavailable

        def make():
            return Consumer(self.id, polling_interval=0, context=str(self.folder))

        self.stream = retry(make, StreamUnavailable)
        return self.stream.receive


class Iceoryx(Peer):
    name = "iceoryx2, busy poll"
    needs = "iceoryx2"

    def service(self):
        import iceoryx2 as iox

        iox.set_log_level(iox.LogLevel.Fatal)
        config = iox.config.default()
        config.global_cfg.prefix = iox.FileName.new(f"{self.id}_")
        config.global_cfg.root_path = iox.Path.new(str(self.folder))
        kind = iox.ServiceType.Ipc
        self.node = iox.NodeBuilder.new().config(config).create(kind)
        name = iox.ServiceName.new(self.id)
        receivers, slots = self.plan.receivers, self.plan.slots
        service = self.node.service_builder(name)
        self.data = (
            service.publish_subscribe(iox.Slice[ctypes.c_uint8])
            .max_publishers(1)
            .max_subscribers(receivers)
            .subscriber_max_buffer_size(slots)
            .subscriber_max_borrowed_samples(2)
            .enable_safe_overflow(False)
            .open_or_create()
        )
        self.events = self.node.service_builder(name).event().open_or_create()
        return iox

    def sender(self):
        iox = self.service()
        size, address, move = self.plan.size, self.address, ctypes.memmove
        self.publisher = (
            self.data.publisher_builder()
            .initial_max_slice_len(size)
            .backpressure_strategy(iox.BackpressureStrategy.RetryUntilDelivered)
            .create()
        )
        loan = self.publisher.loan_slice_uninit
        notify = self.notifier()

        def send(data):
            sample = loan(size)
            move(sample.payload_ptr, address, size)
            sample.assume_init().send()
            if notify is not None:
                notify()

        return send

    def notifier(self):
        return None

    def receiver(self, spinning):
        self.service()
        self.subscriber = self.data.subscriber_builder().create()
        look, pause, held = self.subscriber.receive, self.waiter(), None

        def receive():
            nonlocal held
            held = None  # return it to its sender before receiving the next
            while (held := look()) is None:
                pause()
            return held.payload().as_memory_view()

        return receive

    def waiter(self):
        return int

    def close(self):
        super().close()
        for path in Path("/dev/shm").glob(f"{self.id}_*"):
            path.unlink(missing_ok=True)


class IceoryxEvent(Iceoryx):
    name = "iceoryx2, event"

    def notifier(self):
        self.bell = self.events.notifier_builder().create()
        return self.bell.notify

    def waiter(self):
        import iceoryx2 as iox

        self.listener = self.events.listener_builder().create()
        second = iox.Duration.from_millis(100)
        return lambda: self.listener.timed_wait(second)


class PyZmq(Peer):
    name = "pyzmq PUSH/PULL ipc"
    needs, package = "zmq", "pyzmq"

    def socket(self, kind: str, **options: int):
        import zmq

        self.context = zmq.Context()
        result = self.context.socket(getattr(zmq, kind))
        for option, value in options.items():
            result.setsockopt(getattr(zmq, option), value)
        return result

    def sender(self):
        return self.push(self.socket("PUSH", SNDHWM=self.plan.slots))

    def push(self, out):
        out.bind(f"ipc://{self.folder}/zmq")
        send = out.send
        if self.plan.size <= 1024:
            return send
        return lambda data: send(data.copy(), copy=False)  # it keeps the object

    def receiver(self, spinning):
        return self.pull(self.socket("PULL", RCVHWM=self.plan.slots))

    def pull(self, source):
        source.connect(f"ipc://{self.folder}/zmq")
        receive = source.recv
        if self.plan.size <= 1024:
            return receive
        return lambda: receive(copy=False).buffer


class PyZmqPublish(PyZmq):
    name = "pyzmq XPUB/SUB nodrop"

    def sender(self):
        return self.push(self.socket("XPUB", SNDHWM=self.plan.slots, XPUB_NODROP=1))

    def receiver(self, spinning):
        source = self.socket("SUB", RCVHWM=self.plan.slots)
        source.subscribe(b"")
        return self.pull(source)


class Zenoh(Peer):
    name = "zenoh tcp"
    needs, package = "zenoh", "eclipse-zenoh"

    def made(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.place = f"tcp/127.0.0.1:{probe.getsockname()[1]}"

    def session(self, side: str):
        import zenoh

        config = zenoh.Config()
        config.insert_json5("mode", '"peer"')
        config.insert_json5("scouting/multicast/enabled", "false")
        config.insert_json5("scouting/gossip/enabled", "false")
        config.insert_json5(f"{side}/endpoints", json.dumps([self.place]))
        if side == "connect":
            config.insert_json5("listen/endpoints", "[]")
        return retry(lambda: zenoh.open(config), zenoh.ZError)

    def sender(self):
        import zenoh

        self.link = self.session("listen")
        self.publisher = self.link.declare_publisher(
            self.id,
            congestion_control=zenoh.CongestionControl.BLOCK,
            reliability=zenoh.Reliability.RELIABLE,
            express=self.plan.kind in ("paced", "spinning"),
        )
        put = self.publisher.put
        return lambda data: put(data.tobytes())

    def receiver(self, spinning):
        import zenoh

        self.link = self.session("connect")
        handler = zenoh.handlers.FifoChannel(self.plan.slots)
        self.subscriber = self.link.declare_subscriber(self.id, handler)
        receive = self.subscriber.recv
        return lambda: receive().payload.to_bytes()


ONE_TO_ONE = [Queue, Pipe, FasterFifo, MomentumX, Iceoryx, IceoryxEvent, PyZmq, Zenoh]
FAN_OUT = [MomentumX, Iceoryx, IceoryxEvent, PyZmqPublish, Zenoh]
ASLEEP = [Queue, Pipe, FasterFifo, IceoryxEvent, PyZmq, Zenoh]
PEERS = [*ONE_TO_ONE, PyZmqPublish]
