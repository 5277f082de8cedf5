/** Sessions without a connection: whatever the pieces in which sealed bytes come, and whatever comes that is none. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import test, { after } from 'node:test';
import fc from 'fast-check';
import { SessionFailure, type TlsSession } from '../../../src/transport/tls/session.ts';
import { TlsFolders } from '../../support/tls-folders.ts';

const folders = new TlsFolders();
after(() => folders.close());

const PAIRS = { psk: folders.pair('psk'), x509: folders.pair('x509') } as const;

function sessions(kind: keyof typeof PAIRS, recordsPerKey?: number): [client: TlsSession, server: TlsSession] {
  const { client, server } = PAIRS[kind];
  return [client.credentials.session('127.0.0.1', recordsPerKey), server.credentials.session(undefined, recordsPerKey)];
}

/** In pieces of that many bytes at most. */
function carry(from: TlsSession, to: TlsSession, piece = 1 << 20): void {
  const sealed = from.take() ?? Buffer.alloc(0);
  for (let at = 0; at < sealed.length; at += piece) to.feed(sealed.subarray(at, at + piece));
}

function shakeHands(client: TlsSession, server: TlsSession, piece?: number): void {
  for (let turns = 0; turns < 10; turns++) {
    const done = [client.handshake()];
    carry(client, server, piece);
    done.push(server.handshake());
    carry(server, client, piece);
    if (done.every((one) => one)) return;
  }
  assert.fail('hands were not shaken');
}

function readAll(session: TlsSession): Buffer {
  const read: Buffer[] = [];
  for (;;) {
    const into = Buffer.from(new ArrayBuffer(20_000));
    const count = session.read(into);
    if (count <= 0) return Buffer.concat(read);
    read.push(into.subarray(0, count));
  }
}

for (const kind of ['psk', 'x509'] as const) {
  test(`${kind}: any writes in any pieces, keys that change on the way`, () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.boolean(), fc.integer({ min: 1, max: 70_000 })), { minLength: 1, maxLength: 12 }),
        fc.integer({ min: 1, max: 9000 }),
        fc.integer({ min: 1, max: 5 }),
        (writes, piece, recordsPerKey) => {
          const [client, server] = sessions(kind, recordsPerKey);
          try {
            shakeHands(client, server, piece);
            for (const [there, length] of writes) {
              const [from, to] = there ? [client, server] : [server, client];
              const bytes = randomBytes(length);
              const clear = Buffer.from(new ArrayBuffer(length));
              bytes.copy(clear);
              from.write(clear);
              carry(from, to, piece);
              assert.ok(readAll(to).equals(bytes));
            }
            client.end();
            carry(client, server, piece);
            assert.equal(server.read(Buffer.from(new ArrayBuffer(10))), 0);
          } finally {
            client.free();
            server.free();
          }
        },
      ),
      { numRuns: 25 },
    );
  });
}

test('what is no handshake, and a record with a bit turned, ends a session and nothing else', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 400 }), fc.nat(), fc.boolean(), (noise, place, begun) => {
      const [client, server] = sessions('psk');
      try {
        if (begun) {
          shakeHands(client, server);
          const clear = Buffer.from(new ArrayBuffer(noise.length));
          clear.set(noise);
          client.write(clear);
          const sealed = client.take()!;
          sealed[place % sealed.length]! ^= 1 << (place % 8);
          server.feed(sealed);
          // A length that became longer waits for the rest; it never gives what was not sent.
          try {
            assert.equal(server.read(Buffer.from(new ArrayBuffer(1000))), -1);
          } catch (error) {
            assert.ok(error instanceof SessionFailure, String(error));
          }
        } else {
          const bytes = Buffer.from(new ArrayBuffer(noise.length));
          bytes.set(noise);
          server.feed(bytes);
          try {
            assert.equal(server.handshake(), false);
          } catch (error) {
            assert.ok(error instanceof SessionFailure, String(error));
          }
        }
      } finally {
        client.free();
        server.free();
      }
      assert.throws(() => client.handshake(), SessionFailure);
      assert.throws(() => server.write(Buffer.alloc(1)), SessionFailure);
    }),
    { numRuns: 100 },
  );
});
