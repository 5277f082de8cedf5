/** Compression packet by packet: what is encoded is decoded, as others decode it, and nothing else is. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { constants, inflateSync } from 'node:zlib';
import fc from 'fast-check';
import { CodecRefusal } from '../../src/dataplane/errors.ts';
import { sharedBuffer } from '../../src/dataplane/page-codecs/codec.ts';
import { openDecoder, openEncoder, type PageDecoder, type PageEncoder } from '../../src/dataplane/page-codecs/index.ts';
import { addressOf } from '../../src/native/index.ts';

const PAGE = 4096;

/** Pages that compress somewhat, or not at all. */
function content(pages: number, seed: number, noise: boolean): Buffer {
  const bytes = Buffer.alloc(pages * PAGE);
  let state = seed | 1;
  for (let i = 0; i < bytes.length; i += 4) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    bytes.writeInt32LE(noise ? state : (state >> 20) & 15, i);
  }
  return bytes;
}

function encode(encoder: PageEncoder, bytes: Buffer): Buffer {
  bytes.copy(encoder.input);
  const length = encoder.encode(bytes.length);
  return Buffer.from(encoder.output.subarray(0, length));
}

function decode(decoder: PageDecoder, packet: Buffer, into: Buffer, step: number): void {
  packet.copy(decoder.input);
  decoder.begin(packet.length);
  for (let at = 0; at < into.length; at += step) decoder.decode(addressOf(into) + at, Math.min(step, into.length - at));
  decoder.end();
}

for (const method of ['zlib', 'zstd'] as const) {
  test(`${method}: packets of one stream, in runs of any length`, () => {
    const packets = fc.array(
      fc.record({
        pages: fc.integer({ min: 1, max: 128 }),
        seed: fc.integer(),
        noise: fc.boolean(),
        run: fc.integer({ min: 1, max: 128 }),
      }),
      { minLength: 1, maxLength: 4 },
    );
    const property = fc.property(packets, (list) => {
      const encoder = openEncoder(method, 1)!;
      const decoder = openDecoder(method)!;
      try {
        const sent: Buffer[] = [];
        const all: Buffer[] = [];
        for (const { pages, seed, noise, run } of list) {
          const bytes = content(pages, seed, noise);
          const packet = encode(encoder, bytes);
          const back = sharedBuffer(bytes.length);
          decode(decoder, packet, back, run * PAGE);
          assert.ok(back.equals(bytes));
          sent.push(packet);
          all.push(bytes);
        }
        if (method === 'zlib') {
          const plain = inflateSync(Buffer.concat(sent), { finishFlush: constants.Z_SYNC_FLUSH });
          assert.ok(plain.equals(Buffer.concat(all)));
        }
      } finally {
        encoder.close();
        decoder.close();
      }
    });
    fc.assert(property, { seed: 20261123, numRuns: 12 });
  });

  test(`${method}: a page seen before costs next to nothing, as the stream goes on`, () => {
    const encoder = openEncoder(method, 1)!;
    const noise = content(4, 5, true);
    const first = encode(encoder, noise).length;
    assert.ok(first > 4 * PAGE * 0.9);
    assert.ok(encode(encoder, noise).length < first / 10);
    encoder.close();
  });

  test(`${method}: more, less and other content than announced is refused`, () => {
    const encoder = openEncoder(method, 1)!;
    const packet = encode(encoder, content(2, 1, true));
    encoder.close();
    for (const [name, damaged, pages] of [
      ['less', packet, 3],
      ['cut', packet.subarray(0, packet.length / 2), 2],
      ['more', packet, 1],
      ['other', Buffer.from(content(1, 9, true)), 1],
      ['zeros', Buffer.alloc(100), 1],
    ] as const) {
      const decoder = openDecoder(method)!;
      assert.throws(() => decode(decoder, damaged, sharedBuffer(pages * PAGE), pages * PAGE), CodecRefusal, name);
      decoder.close();
    }
  });
}

test('none has no codec', () => {
  assert.equal(openEncoder('none', 0), undefined);
  assert.equal(openDecoder('none'), undefined);
});
