import type { Channel } from '../../../transport/index.ts';
import {
  type AnnouncedBlock,
  RAM_STOP,
  type RamCounts,
  RamDecoder,
  type RamSink,
  StreamInput,
  unexpected,
} from '../../../wire/index.ts';

/** Records between two looks at how much the machine has still to do. */
const RECORDS_PER_DRAIN = 512;

export interface UrgentReceiverParts {
  /** Of the target, bytes. */
  readonly pageSize: number;
  readonly blocks: readonly AnnouncedBlock[];
  readonly sink: RamSink;
  /** The machine gets time for what it was given. */
  readonly drain: () => Promise<void>;
  /** Bytes in front of the first record, by which one of several channels has said which it is. Default 0. */
  readonly initialBytes?: number;
}

/** Reads a preempt channel: page records and nothing around them (qemu-wire 6.6). */
export class UrgentReceiver {
  readonly channel: Channel;
  readonly #input: StreamInput;
  readonly #decoder: RamDecoder;
  readonly #drain: () => Promise<void>;
  readonly #initialBytes: number;

  constructor(channel: Channel, { pageSize, blocks, sink, drain, initialBytes = 0 }: UrgentReceiverParts) {
    this.channel = channel;
    this.#drain = drain;
    this.#initialBytes = initialBytes;
    this.#input = new StreamInput(channel.label);
    this.#decoder = new RamDecoder(pageSize, blocks, sink);
    this.#decoder.rules.xbzrle = false;
  }

  get counts(): Readonly<RamCounts> {
    return this.#decoder.counts;
  }

  /**
   * Resolves with `eos`, with which a source of a machine type up to 7.2 says that no more pages come here, or with `end` when the channel has ended
   * between two records: whether pages are still awaited the caller knows. Throws WireError, TransportError, and as `drain`.
   */
  async run(): Promise<'eos' | 'end'> {
    const input = this.#input;
    const decoder = this.#decoder;
    while (input.reader.available < this.#initialBytes) if (!(await this.#more())) return 'end';
    input.reader.skip(this.#initialBytes);
    for (;;) {
      const stop = decoder.decode(input.reader, RECORDS_PER_DRAIN);
      if (stop === RAM_STOP.EOS) return 'eos';
      if (stop === RAM_STOP.MULTIFD_FLUSH) {
        throw unexpected(input.reader, input.reader.offset - 8, 'preempt channel', 'record', 'a page', 'MULTIFD_FLUSH');
      }
      await this.#drain();
      if (stop === RAM_STOP.FULL) continue;
      if (await this.#more()) continue;
      if (input.reader.available > 0) input.reader.need(Math.max(1, decoder.wanted));
      return 'end';
    }
  }

  /** False: the channel has ended. */
  async #more(): Promise<boolean> {
    const input = this.#input;
    input.release();
    const chunk = this.channel.tryRead() ?? (await this.channel.read());
    if (chunk === null) input.finish();
    else input.add(chunk);
    return chunk !== null;
  }
}
