// An OpenID Provider on loopback, of the certified library oidc-provider: node server.mjs PORT RETURN_ADDRESS
import Provider from "oidc-provider";

const [port, returnAddress] = process.argv.slice(2);
const claims = {
  name: "Ada Example",
  email: "ada@uni.example",
  email_verified: true,
  eduperson_scoped_affiliation: "faculty@uni.example",
};
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [{ client_id: "portal", client_secret: "secret", redirect_uris: [returnAddress] }],
  claims: {
    openid: ["sub", "eduperson_scoped_affiliation"],
    profile: ["name"],
    email: ["email", "email_verified"],
  },
  pkce: { required: () => true },
  findAccount: (_, sub) => ({ accountId: sub, claims: () => ({ sub, ...claims }) }),
  features: { devInteractions: { enabled: true } },
});
provider.listen(Number(port), "127.0.0.1", () => console.log("listening"));
