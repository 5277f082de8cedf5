/** Every message of conversations between libvfio-user and QEMU: understood, and written again byte for byte. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import test from 'node:test';
import { StreamInput, vfioUser } from '../../../src/wire/index.ts';
import { CONVERSATIONS, capturedFile, conversation, VFIO_USER_PROVENANCE } from '../../support/vfio-user-captures.ts';
import { encodedAgain, messageOf, PAYLOAD_MAX, said } from './support.ts';

for (const name of CONVERSATIONS) {
  const messages = conversation(name);
  const { sha256, messages: count } = VFIO_USER_PROVENANCE[`${name}.jsonl.gz`]!;

  test(`${name}: is what its provenance says`, () => {
    assert.equal(createHash('sha256').update(capturedFile(name)).digest('hex'), sha256);
    assert.equal(messages.length, count);
  });

  test(`${name}: every message is written again as it was`, () => {
    for (const [index, { bytes }] of messages.entries()) {
      const message = messageOf(bytes);
      const again = encodedAgain(message);
      const expected = expectedAgain(message, bytes);
      assert.equal(again.toString('hex'), expected.toString('hex'), `message ${index}: ${message.payload.path}`);
    }
  });

  test(`${name}: either direction is a stream that may be cut anywhere`, () => {
    for (const from of ['client', 'server'] as const) {
      const own = messages.filter((message) => message.from === from);
      const stream = Buffer.concat(own.map(({ bytes }) => bytes));
      for (const step of [1, 7, 1000]) {
        const ids: number[] = [];
        const input = new StreamInput(from);
        for (let at = 0; at < stream.length; at += step) {
          const bytes = Buffer.from(stream.subarray(at, at + step));
          input.add({ bytes, start: 0, end: bytes.length });
          for (let next = take(input); next !== undefined; next = take(input)) ids.push(next);
          input.release();
        }
        assert.deepEqual(
          ids,
          own.map(({ bytes }) => bytes.readUInt16LE(0)),
          `${from} in pieces of ${step}`,
        );
      }
    }
  });
}

function take(input: StreamInput): number | undefined {
  try {
    return vfioUser.decodeMessage(input.reader, PAYLOAD_MAX).id;
  } catch (thrown) {
    if (typeof thrown === 'symbol') return undefined;
    throw thrown;
  }
}

/** What we write differently on purpose: JSON without blanks, replies without padding, errors without a payload. */
function expectedAgain(message: vfioUser.Message, bytes: Buffer): Buffer {
  const { payload, error, type } = message;
  const command = vfioUser.commandOfNumber(message.command);
  if (error !== undefined) return resized(bytes, vfioUser.HEADER_BYTES);
  if (command === 'MIG_DATA_READ' && type === 'reply') {
    const size = payload.bytes.readUInt32LE(4);
    const whole = vfioUser.HEADER_BYTES + vfioUser.MIG_DATA_HEAD_BYTES + size;
    assert.ok(
      bytes.subarray(whole).every((byte) => byte === 0),
      'what is behind the data is padding',
    );
    return resized(bytes, whole);
  }
  // The sample's client fills its request up to the size of the reply that it takes.
  if (command === 'DEVICE_GET_REGION_INFO' && type === 'command') {
    return resized(bytes, vfioUser.HEADER_BYTES + vfioUser.REGION_INFO_BYTES);
  }
  if (command !== 'VERSION') return bytes;
  const text = bytes.toString('utf8', 20, bytes.length - 1);
  const { capabilities } = said(message) as { capabilities: Record<string, unknown> };
  assert.equal(Object.keys(capabilities).length, Object.keys(JSON.parse(text).capabilities).length, text);
  return encodedAgain(message);
}

function resized(bytes: Buffer, length: number): Buffer {
  const cut = Buffer.from(bytes.subarray(0, length));
  cut.writeUInt32LE(length, 4);
  return cut;
}
