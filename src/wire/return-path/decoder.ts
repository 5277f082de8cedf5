import { FerryError, type Reader, type ReadFault, STARVED } from '../../base/index.ts';
import { locate } from '../errors.ts';
import { decodeReturnPathMessage, type ReturnPathMessage } from './message.ts';

export interface ReturnPathDecoderOptions {
  /** Largest bitmap taken after RECV_BITMAP, bytes; a source knows its blocks and can say. */
  readonly bitmapBytesMax?: number;
}

/** Messages one after another, as bytes arrive (StreamInput). */
export class ReturnPathDecoder {
  readonly #reader: Reader;
  readonly #options: ReturnPathDecoderOptions;

  constructor(reader: Reader, options: ReturnPathDecoderOptions = {}) {
    this.#reader = reader;
    this.#options = options;
  }

  /** The next message; undefined: more bytes are needed, or the end was reached between messages. Throws WireError. */
  next(): ReturnPathMessage | undefined {
    const reader = this.#reader;
    if (reader.available === 0) return undefined;
    const mark = reader.pos;
    try {
      return decodeReturnPathMessage(reader, this.#options.bitmapBytesMax);
    } catch (thrown) {
      reader.pos = mark;
      if (thrown === STARVED) return undefined;
      if (thrown instanceof FerryError && thrown.code === 'WIRE_TRUNCATED') {
        throw locate(thrown as FerryError<ReadFault>, 'return path message');
      }
      throw thrown;
    }
  }
}
