/** Watches the bytes of a stream go by and knows where its landmarks lie, so that a link can be cut at one to the byte. */
import { type RamSink, StreamInput, StreamParser, type StreamRamBlock } from '../../src/wire/index.ts';

/** `end`: RAM's END section begins. `ram-end`: it is over. `eof`: the EOF byte. `total`: the stream is over. Offsets in bytes. */
export type Landmark = 'end' | 'ram-end' | 'eof' | 'total';

const NOWHERE: RamSink = { page() {}, zero() {}, read() {} };
const HEADROOM = 8 * 1024;

export class StreamTap {
  readonly landmarks: Partial<Record<Landmark, number>> = {};
  /** Bytes seen. */
  bytes = 0;
  readonly #input = new StreamInput('tap');
  readonly #parser = new StreamParser(this.#input.reader);
  readonly #found: (landmark: Landmark, offset: number) => void;

  /** Who wants the pages; asked when the blocks are announced. */
  sinkFor: (blocks: readonly StreamRamBlock[]) => RamSink = () => NOWHERE;

  /** `found` is called before the bytes around the landmark go anywhere. */
  constructor(found: (landmark: Landmark, offset: number) => void = () => {}) {
    this.#found = found;
  }

  feed(bytes: Uint8Array): void {
    this.bytes += bytes.length;
    const copy = Buffer.allocUnsafe(HEADROOM + bytes.length);
    copy.set(bytes, HEADROOM);
    this.#input.add({ bytes: copy, start: HEADROOM, end: copy.length });
    for (let event = this.#parser.next(); event !== undefined; event = this.#parser.next()) {
      if (event.kind === 'ram-blocks') this.#parser.setRamSink(this.sinkFor(event.blocks));
      if (event.kind === 'section-begin' && event.section.kind === 'end') this.#mark('end', event.offset);
      if (event.kind === 'section-end' && event.section.kind === 'end')
        this.#mark('ram-end', event.offset + event.length);
      if (event.kind === 'eof') this.#mark('eof', event.offset);
      if (event.kind === 'description') this.#mark('total', event.offset + event.length);
    }
    this.#input.release();
  }

  #mark(landmark: Landmark, offset: number): void {
    if (this.landmarks[landmark] !== undefined) return;
    this.landmarks[landmark] = offset;
    this.#found(landmark, offset);
  }
}
