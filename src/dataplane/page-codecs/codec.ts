/**
 * Compression of packets. One stream runs through all packets of a channel, for the whole migration (qemu-wire 5.5): what is written is flushed at
 * the end of each packet, so that the receiver can have it all, and never finished.
 */
export interface PageEncoder {
  /** 512 KiB for the pages of a packet, behind one another. */
  readonly input: Buffer;
  /** Begins with the compressed bytes. */
  readonly output: Buffer;
  readonly outputAddress: number;
  /** Compresses the first `length` bytes of `input`; returns how many bytes of `output` that makes. Throws CodecRefusal. */
  encode(length: number): number;
  close(): void;
}

export interface PageDecoder {
  /** MULTIFD_COMPRESSED_BYTES_MAX for the payload of a packet. */
  readonly input: Buffer;
  readonly inputAddress: number;
  /** The first `length` bytes of `input` are a packet's payload. */
  begin(length: number): void;
  /** The next `length` bytes of content go to `address`. Throws CodecRefusal if there are fewer. */
  decode(address: number, length: number): void;
  /** Throws CodecRefusal if the payload holds more than was taken. */
  end(): void;
  close(): void;
}

export function sharedBuffer(length: number): Buffer {
  return Buffer.from(new SharedArrayBuffer(length));
}

/** A 64-bit address into a C structure, little endian like every machine we run on. */
export function putAddress(words: Uint32Array, index: number, address: number): void {
  words[index] = address;
  words[index + 1] = address / 0x1_0000_0000;
}
