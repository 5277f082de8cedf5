import { openUserDevice } from '../../src/vfio/index.ts';

/** Of the device that a server offers at `socket`; whoever asks is a client, if the only one. */
export async function stateOf(socket: string): Promise<string> {
  const device = await openUserDevice({ socket });
  try {
    return await device.state();
  } finally {
    await device.close();
  }
}
