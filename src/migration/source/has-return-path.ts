import type { SettingsView } from '../../settings/index.ts';
import type { Address, Channel } from '../../transport/index.ts';

/**
 * Sockets always carry a return path: without it the source cannot know whether the guest has arrived (qemu-wire 2.3). A command's
 * output is read only if the operator says that something answers there (capability return-path); a file never answers.
 */
export function hasReturnPath(address: Address, channel: Channel, settings: SettingsView): boolean {
  switch (address.kind) {
    case 'tcp':
    case 'unix':
      return true;
    case 'fd':
      return channel.duplex;
    case 'exec':
      return channel.duplex && settings.capability('return-path');
    case 'file':
      return false;
  }
}
