/**
 * The client's side of captured conversations, said to our server: it answers as libvfio-user's server did, byte for byte, but for what
 * stands in DIFFERENCES. The device behind it does what the samples' devices did.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import { vfioUser } from '../../../src/wire/index.ts';
import { type CapturedMessage, conversation } from '../../support/vfio-user-captures.ts';
import { messageOf } from '../../wire/vfio-user/support.ts';
import { SampleDevice } from './sample-device.ts';
import { RawEnd, withServer } from './support.ts';

const CONFIG = 7;

interface Difference {
  readonly why: string;
  /** Both payloads without what differs. */
  readonly without: (payload: Buffer) => Buffer;
}

const first = (length: number) => (payload: Buffer) => payload.subarray(0, length);

/** What we say otherwise, by command and, where it matters, region. */
function differenceOf(asked: vfioUser.Message): Difference | undefined {
  const region = asked.payload.bytes.length >= 12 ? asked.payload.bytes.readUInt32LE(8) : -1;
  switch (vfioUser.commandOfNumber(asked.command)) {
    case 'VERSION':
      return { why: 'the words of our own capabilities', without: first(2) };
    case 'DEVICE_GET_REGION_INFO':
      if (region !== 1) return undefined;
      return { why: 'no region can be mapped', without: (payload) => payload.subarray(8, 12) };
    case 'REGION_READ':
      if (region !== 0) return undefined;
      return { why: 'BAR 0 of the sample reads as a time that passes', without: first(16) };
    case 'DEVICE_FEATURE':
      if (vfioUser.decodeRequest('DEVICE_FEATURE', asked).flags.index !== 8) return undefined;
      return { why: 'it logs what it has mapped, we what went by messages', without: first(32) };
    case 'MIG_DATA_READ':
      return {
        why: 'it fills replies up with zeros',
        without: (payload) => payload.subarray(0, payload.readUInt32LE(0)),
      };
    default:
      return undefined;
  }
}

/** The device that was asked, as far as it can be known from what it answered. */
function deviceOf(messages: readonly CapturedMessage[], state: readonly number[], early: number): SampleDevice {
  const regions = new Map<number, Buffer>();
  // INTx, which QEMU takes for granted.
  const interrupts = [{ index: 0, count: 1 }];
  for (const { bytes } of messages) {
    const message = messageOf(bytes);
    if (message.type !== 'reply' || message.error !== undefined) continue;
    const command = vfioUser.commandOfNumber(message.command);
    if (command === 'DEVICE_GET_REGION_INFO') {
      const { index, size } = vfioUser.decodeReply(command, message);
      if (size > 0 && !regions.has(index)) regions.set(index, Buffer.alloc(size));
    } else if (command === 'DEVICE_GET_IRQ_INFO') {
      const { index, count } = vfioUser.decodeReply(command, message);
      if (index > 0) interrupts.push({ index, count });
    } else if (command === 'REGION_READ' && regions.get(CONFIG)?.equals(Buffer.alloc(256)) === true) {
      const { region, offset, data } = vfioUser.decodeReply(command, message);
      if (region === CONFIG) regions.get(CONFIG)?.set(data, offset);
    }
  }
  return new SampleDevice({ regions, interrupts, state, early });
}

/** The DMA of the sample server: 4 KiB written and read again, by messages, in what was mapped first. */
async function sampleDma(device: SampleDevice, address: number): Promise<void> {
  const space = device.space!;
  for (let i = 0; i < 4; i++) await space.write(address + i * 1024, Buffer.alloc(1024, 0x41 + i));
  for (let i = 0; i < 4; i += 2) await space.read(address + i * 1024, Buffer.alloc(2048));
}

async function replay(name: string, device: SampleDevice, messages = conversation(name)): Promise<void> {
  const play = async (socket: string) => {
    const raw = await RawEnd.connect(socket);
    const asked: vfioUser.Message[] = [];
    let dma: Promise<void> | undefined;
    for (const [index, { from, bytes }] of messages.entries()) {
      const captured = messageOf(bytes);
      if (from === 'client') {
        if (captured.type === 'command') asked.push(captured);
        raw.send(bytes);
        continue;
      }
      if (captured.type === 'command') dma ??= sampleDma(device, Number(captured.payload.bytes.readBigUInt64LE(0)));
      const said = await raw.next();
      const where = `message ${index} of ${name}: ${captured.payload.path}`;
      assert.ok(said !== undefined, where);
      const { payload: ours, ...header } = said;
      const { payload: theirs, ...expected } = captured;
      assert.deepEqual(header, expected, where);
      const difference = captured.type === 'command' ? undefined : differenceOf(asked.shift()!);
      if (captured.error !== undefined) continue; // theirs may have a payload
      const without = difference?.without ?? ((payload) => payload);
      assert.equal(without(ours.bytes).toString('hex'), without(theirs.bytes).toString('hex'), where);
    }
    await dma;
    raw.close();
  };
  // The samples reach guest memory though no guest has allowed it.
  await withServer(device, ({ socket }) => play(socket), {}, true);
}

test("the source of a move, as libvfio-user's client drives it", async () => {
  const messages = conversation('sample-source');
  await replay('sample-source', deviceOf(messages, [1, 0], 1));
});

test('the destination of a move', async () => {
  // Its client does not ask for the regions again: the device is the source's.
  const device = deviceOf(conversation('sample-source'), [1, 0], 1);
  await replay('sample-destination', device);
});

test('QEMU finds a device, sizes its regions and maps memory', async () => {
  const messages = conversation('qemu-gpio');
  await replay('qemu-gpio', deviceOf(messages, [2], 0));
});
