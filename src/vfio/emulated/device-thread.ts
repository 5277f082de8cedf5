/** Entry of an emulated VF's thread. */
import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import { asError } from '../../base/index.ts';
import { threadId } from '../../native/index.ts';
import { ERRNO, isVfioError, operationFailed } from '../errors.ts';
import { type DmaPort, NO_DMA } from './dma.ts';
import { EmulatedDevice } from './emulated-device.ts';
import type { DeviceStart, Failure, FromDevice, SharedBytes, ToDevice } from './messages.ts';

/** The device's activity comes in portions of this length, ms. */
const TICK_MS = 2;

/** DMA as messages to the thread that reaches guest memory. */
class MessageDma implements DmaPort {
  readonly #post: (message: FromDevice) => void;
  #outstanding = 0;
  #drained: (() => void)[] = [];
  failures = 0;

  constructor(post: (message: FromDevice) => void) {
    this.#post = post;
  }

  storePage(iova: number, version: number, place: number, word: number): void {
    this.#outstanding++;
    this.#post({
      kind: 'dma',
      iova,
      words: [
        [0, version],
        [4 * place, word],
      ],
    });
  }

  done(ok: boolean): void {
    if (!ok) this.failures++;
    if (--this.#outstanding > 0) return;
    for (const resolve of this.#drained) resolve();
    this.#drained = [];
  }

  drained(): Promise<void> {
    return this.#outstanding === 0 ? Promise.resolve() : new Promise((resolve) => this.#drained.push(resolve));
  }
}

function serve(port: MessagePort, start: DeviceStart): void {
  const post = (message: FromDevice) => port.postMessage(message);
  let timer: NodeJS.Timeout | undefined;
  // A device that does nothing of its own does not wake the processor either.
  const activeChanged = (active: boolean) => {
    clearInterval(timer);
    timer = active ? setInterval(() => device.tick(), TICK_MS) : undefined;
  };
  const device = new EmulatedDevice({ ...start, activeChanged, die: () => process.exit(1) });
  const dma = new MessageDma(post);
  port.on('message', (message: ToDevice) => {
    if (message.kind === 'dma-done') return dma.done(message.ok);
    const { id } = message;
    answer(device, dma, message).then(
      (value) => post({ kind: 'answer', id, value }),
      (thrown: unknown) => post({ kind: 'failed', id, ...failureOf(thrown, start.name) }),
    );
  });
  port.on('close', () => clearInterval(timer));
  device.open().then(
    () => post({ kind: 'started', mailbox: device.peer.mailbox, threadId: threadId() }),
    (thrown: unknown) => post({ kind: 'refused', ...failureOf(thrown, start.name) }),
  );
}

function failureOf(thrown: unknown, device: string): Failure {
  const error = isVfioError(thrown)
    ? thrown
    : operationFailed(device, 'open', ERRNO.EIO, `its thread failed: ${asError(thrown).message}`);
  return { fault: error.fault, message: error.message };
}

function answer(device: EmulatedDevice, dma: MessageDma, call: ToDevice & { kind: 'call' }): Promise<unknown> {
  switch (call.method) {
    case 'read':
      return device.read(view(...call.args));
    case 'write':
      return device.write(view(...call.args));
    case 'loadConfig':
      return device.loadConfig(Buffer.from(call.args[0]));
    case 'writeRegion':
      return device.writeRegion(call.args[0], call.args[1], Buffer.from(call.args[2]));
    case 'readRegion': {
      const [index, offset, length] = call.args;
      const bytes = Buffer.alloc(length);
      return device.readRegion(index, offset, bytes).then(() => bytes);
    }
    case 'reportDmaLogging': {
      const [range, pageSize, words] = call.args;
      const map = new Uint32Array(words);
      return device.reportDmaLogging(range, pageSize, map).then(() => map);
    }
    case 'attachMessages':
      return device.attachPort(call.args[0] ? dma : NO_DMA);
    default: {
      const { method, args } = call;
      return (device[method] as (...args: unknown[]) => Promise<unknown>).apply(device, args);
    }
  }
}

function view({ memory, at, length }: SharedBytes): Buffer {
  return Buffer.from(memory, at, length);
}

serve(parentPort!, workerData as DeviceStart);
