"""The token formats of well-known services, as their vendors document them.

The tables are data: a name, a pattern, and the vendor's page above it. A prefix that no other text
has makes a format count anywhere. A format without one (so many hexadecimal digits, a UUID) counts
only near the vendor's name *and* what it is a key to, since ids and digests look the same.

Checksums inside tokens (GitHub, npm) are not verified: what was mistyped or made up is no more
meant to be read than the token itself. Lengths are lower bounds where a vendor says that tokens
may grow, so that none keeps its tail.
"""

import re
from collections.abc import Callable

from sidecar.redaction.detectors.base import Shape, Span, whole
from sidecar.redaction.detectors.entropy import looks_random

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
# Of base64 in URLs (RFC 4648 section 5), which most tokens are written in.
_URL_SAFE = r"[0-9A-Za-z_-]"
_END = r"(?:$|[^0-9A-Za-z])"

# Name → pattern. A group named ``value`` is the secret, where more than it is looked for.
TOKENS = {
    # --- clouds ---
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-unique-ids
    "aws-access-key-id": rf"(?P<value>(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{{16}}){_END}",
    # https://docs.aws.amazon.com/bedrock/latest/userguide/api-keys.html
    "aws-bedrock": r"ABSKQmVkcm9ja0FQSUtleS[0-9A-Za-z+/]{60,}={0,2}",
    # The same page: keys that live for hours, a signed URL in base64.
    "aws-bedrock-short": r"bedrock-api-key-[0-9A-Za-z+/]{60,}={0,2}",
    # https://cloud.google.com/docs/authentication/api-keys
    "google-api-key": r"AIza[0-9A-Za-z_-]{35,}",
    # https://developers.google.com/identity/protocols/oauth2
    "google-oauth-access": r"ya29\.[0-9A-Za-z_-]{20,}",
    "google-oauth-refresh": r"1//0[0-9A-Za-z_-]{38,}",
    # https://support.google.com/cloud/answer/6158849 (client secrets)
    "google-client-secret": rf"GOCSPX-{_URL_SAFE}{{28,}}",
    # https://learn.microsoft.com/purview/sit-defn-azure-storage-account-key
    "azure-storage-key": r"(?i:account_?key)[\"']?\s*[=:]\s*[\"']?(?P<value>[0-9A-Za-z+/]{86}==)",
    # https://learn.microsoft.com/rest/api/storageservices/create-service-sas
    "azure-sas-signature": r"sig=(?P<value>[0-9A-Za-z+/]{43}=)",
    # https://learn.microsoft.com/purview/sit-defn-azure-ad-client-secret
    "azure-client-secret": r"[0-9A-Za-z_~.-]{3}[0-9]Q~[0-9A-Za-z_~.-]{31,}",
    # https://learn.microsoft.com/azure/devops/organizations/accounts/use-personal-access-tokens-to-authenticate
    "azure-devops": rf"(?P<value>[0-9A-Za-z]{{76}}AZDO[0-9A-Za-z]{{4}}){_END}",
    # https://github.com/microsoft/security-utilities (common annotated security keys)
    "azure-annotated-key": r"[0-9A-Za-z]{52}JQQJ9[0-9A-Za-z]{27,}(?:==)?",
    # https://www.alibabacloud.com/help/en/ram/user-guide/create-an-accesskey-pair
    "alibaba-access-key-id": rf"(?P<value>LTAI[0-9A-Za-z]{{12,26}}){_END}",
    # https://www.tencentcloud.com/document/product/598/32675
    "tencent-secret-id": rf"(?P<value>(?:AKID|IKID)[0-9A-Za-z]{{32}}){_END}",
    # https://yandex.cloud/en/docs/security/operations/search-secrets
    "yandex-api-key": rf"AQVN{_URL_SAFE}{{35,}}",
    "yandex-iam": rf"(?:c1|t1)\.{_URL_SAFE}+={{0,2}}\.{_URL_SAFE}{{86,}}={{0,2}}",
    "yandex-oauth": rf"(?:y0|y1|y2|y3)_{_URL_SAFE}{{55,}}",
    # https://docs.digitalocean.com/reference/api/create-personal-access-token/
    "digitalocean": r"do[opr]_v1_[0-9a-f]{64,}",
    # https://devcenter.heroku.com/articles/heroku-cli-commands (authorizations)
    "heroku": rf"HRKU-{_URL_SAFE}{{36,}}",
    # https://fly.io/docs/security/tokens/
    "fly-macaroon": r"fm[12][ar]?_[0-9A-Za-z+/=_-]{80,}",
    "fly-oauth": rf"fo1_{_URL_SAFE}{{43,}}",
    # https://docs.netlify.com/api-and-cli-guides/api-guides/get-started-with-api/
    "netlify": r"nf[bcopu]_[0-9A-Za-z]{36,}",
    # https://vercel.com/changelog/new-token-formats-and-secret-scanning
    "vercel": r"vc[acikpr]_[0-9A-Za-z]{24,}",
    # https://developers.cloudflare.com/fundamentals/api/get-started/token-formats
    "cloudflare": r"cf(?:k|ut|at)_[0-9A-Za-z_-]{40,}",
    # https://developers.cloudflare.com/fundamentals/api/get-started/ca-keys/
    "cloudflare-origin-ca": r"v1\.0-[0-9a-f]{24}-[0-9a-f]{146,}",
    # https://render.com/docs/api
    "render": r"rnd_[0-9A-Za-z]{28,}",
    # https://tailscale.com/kb/1277/key-prefixes
    "tailscale": r"tskey-[a-z]+-[0-9A-Za-z]{8,}-[0-9A-Za-z]{16,}",
    # --- code, packages, builds ---
    # https://github.blog/engineering/behind-githubs-new-authentication-token-formats/
    "github": r"gh[pousr]_[0-9A-Za-z]{36,}",
    "github-fine-grained": r"github_pat_[0-9A-Za-z_]{50,}",
    # https://docs.gitlab.com/security/tokens/#token-prefixes
    "gitlab": (
        # `rt|rtr`, not `rtr?`, in which RE2 would see no literal.
        r"gl(?:pat|dt|rt|rtr|ptt|soat|cbt|imt|agent|oas|ft|ffct|wt)-(?:t[0-9]_)?[0-9A-Za-z_-]{20,}"
        r"(?:\.[0-9a-z]{2}\.[0-9a-z]{7,})?"
    ),
    "gitlab-runner-registration": rf"GR1348941{_URL_SAFE}{{20,}}",
    # https://support.atlassian.com/atlassian-account/docs/manage-api-tokens-for-your-atlassian-account/
    "atlassian": r"AT[AC]TT3[0-9A-Za-z_=-]{60,}",
    # https://support.atlassian.com/bitbucket-cloud/docs/app-passwords/
    "bitbucket-app-password": r"ATBB[0-9A-Za-z]{32,}",
    # https://developer.atlassian.com/cloud/trello/guides/rest-api/api-introduction/
    "trello": r"ATTA[0-9a-f]{64,}",
    # https://docs.npmjs.com/about-access-tokens
    "npm": r"npm_[0-9A-Za-z]{36,}",
    # The help page of the Python Package Index, "How can I use API tokens"
    "pypi": r"pypi-[0-9A-Za-z_-]{50,}",
    # https://guides.rubygems.org/api-key-scopes/
    "rubygems": r"rubygems_[0-9a-f]{48,}",
    # https://github.com/rust-lang/crates.io, src/util/token.rs
    "crates-io": rf"(?P<value>cio[0-9A-Za-z]{{32}}){_END}",
    # https://docs.docker.com/security/access-tokens/
    "docker-hub": rf"dckr_[op]at_{_URL_SAFE}{{27,}}",
    # https://github.com/clojars/clojars-web/wiki/Deploy-Tokens
    "clojars": r"CLOJARS_[0-9a-f]{60,}",
    # https://buildkite.com/docs/apis/managing-api-tokens
    "buildkite": r"bk(?:ua|aj|ct|rt)_[0-9a-f]{40,}",
    # https://circleci.com/docs/managing-api-tokens/
    "circleci": r"CCI(?:PAT|PRJ)_[0-9A-Za-z]{22}_[0-9a-f]{40,}",
    # https://docs.sonarsource.com/sonarqube-server/user-guide/managing-tokens/
    "sonarqube": r"sq[apu]_[0-9a-f]{40,}",
    # https://www.pulumi.com/docs/pulumi-cloud/access-management/access-tokens/
    "pulumi": r"pul-[0-9a-f]{40,}",
    # https://docs.prefect.io/v3/how-to-guides/cloud/manage-users/api-keys
    "prefect": r"pn[bu]_[0-9A-Za-z]{36,}",
    # https://octopus.com/docs/octopus-rest-api/how-to-create-an-api-key
    "octopus": rf"(?P<value>API-[0-9A-Z]{{26,}}){_END}",
    # https://developer.harness.io/docs/platform/automation/api/add-and-manage-api-keys
    "harness": rf"(?:pat|sat)\.{_URL_SAFE}{{22}}\.[0-9A-Za-z]{{24}}\.[0-9A-Za-z]{{20,}}",
    # https://www.infracost.io/docs/
    "infracost": r"ico-[0-9A-Za-z]{32,}",
    # https://jfrog.com/help/r/jfrog-platform-administration-documentation/access-tokens
    "jfrog-api-key": r"AKCp[0-9A-Za-z]{69,}",
    "jfrog-reference": r"cmVmd[0-9A-Za-z]{59,}",
    # https://docs.redhat.com/documentation/openshift_container_platform (OAuth access tokens)
    "openshift": rf"sha256~{_URL_SAFE}{{43,}}",
    # https://sourcegraph.com/docs/cli/how-tos/creating_an_access_token
    "sourcegraph": r"sgp_(?:(?:[0-9a-fA-F]{16}|local)_)?[0-9a-fA-F]{40,}",
    # https://docs.readme.com/main/reference/authentication
    "readme": r"rdme_[0-9a-z]{70,}",
    # --- secrets kept for others ---
    # https://developer.hashicorp.com/terraform/cloud-docs/users-teams-organizations/api-tokens
    "terraform-cloud": r"[0-9A-Za-z]{14}\.atlasv1\.[0-9A-Za-z_=-]{60,}",
    # https://developer.hashicorp.com/vault/docs/concepts/tokens#token-prefixes
    "vault": rf"hv[brs]\.{_URL_SAFE}{{24,}}",
    # https://docs.doppler.com/reference/auth-token-formats
    "doppler": r"dp\.(?:pt|st|ct|sa|said|scim|audit)\.(?:[0-9a-z_-]{2,35}\.)?[0-9A-Za-z]{40,}",
    # https://developer.1password.com/docs/service-accounts/
    "1password-service-account": rf"ops_eyJ{_URL_SAFE}{{120,}}",
    # https://age-encryption.org/v1 (identities are Bech32)
    "age": r"AGE-SECRET-KEY-1[02-9AC-HJ-NP-Z]{58,}",
    # https://developer.okta.com/docs/guides/create-an-api-token/
    "okta": rf"SSWS\s+(?P<value>00{_URL_SAFE}{{40,}})",
    # --- telemetry ---
    # https://grafana.com/docs/grafana/latest/administration/service-accounts/
    "grafana-service-account": r"glsa_[0-9A-Za-z]{32}_[0-9a-f]{8,}",
    # https://grafana.com/docs/grafana-cloud/security-and-account-management/authentication-and-permissions/
    "grafana-cloud": r"glc_[0-9A-Za-z+/]{32,}={0,3}",
    # The same, before service accounts: `{"k":"` in base64.
    "grafana-before-2023": r"eyJrIjoi[0-9A-Za-z]{70,}={0,3}",
    # https://docs.newrelic.com/docs/apis/intro-apis/new-relic-api-keys/
    "new-relic": r"NR(?:AK-[0-9A-Z]{27,}|I[IQ]-[0-9A-Za-z_-]{32,})",
    "new-relic-license": rf"(?P<value>[0-9a-f]{{36}}NRAL){_END}",
    # https://docs.sentry.io/account/auth-tokens/
    "sentry-organization": r"sntrys_[0-9A-Za-z+/=_-]{80,}",
    "sentry-user": r"sntryu_[0-9a-f]{64,}",
    # https://posthog.com/docs/api#private-endpoint-authentication
    "posthog": r"ph[xs]_[0-9A-Za-z]{43,}",
    # https://docs.dynatrace.com/docs/dynatrace-api/basics/dynatrace-api-authentication
    "dynatrace": r"dt0[a-z][0-9]{2}\.[0-9A-Z]{8,24}\.[0-9A-Z]{64,}",
    # https://logfire.pydantic.dev/docs/how-to-guides/create-write-tokens/
    "logfire": r"pylf_v[0-9]_[a-z]{2,}_[0-9A-Za-z]{43,}",
    # https://axiom.co/docs/reference/tokens
    "axiom": rf"xa[ap]t-{_UUID}",
    # https://docs.honeycomb.io/configure/environments/manage-api-keys/
    "honeycomb": r"hc[a-z](?:ik|mk)_[0-9a-z]{58,}",
    # https://launchdarkly.com/docs/home/account/api
    "launchdarkly-sdk": rf"sdk-{_UUID}",
    # --- models ---
    # https://platform.openai.com/docs/api-reference/authentication
    "openai": rf"sk-(?:proj|svcacct|admin|None)-{_URL_SAFE}{{20,}}",
    # https://docs.claude.com/en/api/admin-api/apikeys/get-api-key
    "anthropic": rf"sk-ant-[a-z]+[0-9]{{2}}-{_URL_SAFE}{{20,}}",
    # https://openrouter.ai/docs/api-reference/authentication
    "openrouter": r"sk-or-v[0-9]-[0-9a-f]{64,}",
    # https://langfuse.com/docs/api-and-data-platform/features/public-api
    "langfuse": rf"sk-lf-{_UUID}",
    # https://docs.openwebui.com/reference/api-endpoints/ (API keys), and services like it
    "model-api": rf"sk-(?:[a-z]+[0-9]*-)*{_URL_SAFE}{{20,}}",
    # https://huggingface.co/docs/hub/security-tokens
    "hugging-face": r"(?:hf|api_org)_[0-9A-Za-z]{30,}",
    # https://console.groq.com/docs/quickstart
    "groq": r"gsk_[0-9A-Za-z]{40,}",
    # https://replicate.com/docs/topics/security/api-tokens
    "replicate": r"r8_[0-9A-Za-z_-]{37,}",
    # https://docs.perplexity.ai/guides/api-key-management
    "perplexity": r"pplx-[0-9A-Za-z]{40,}",
    # https://docs.x.ai/docs/overview
    "xai": r"xai-[0-9A-Za-z]{70,}",
    # https://docs.fireworks.ai/api-reference/introduction
    "fireworks": r"fw_[0-9A-Za-z]{22,}",
    # https://inference-docs.cerebras.ai/quickstart
    "cerebras": r"csk-[0-9a-z]{48,}",
    # https://docs.nvidia.com/ngc/latest/ngc-user-guide.html (API keys)
    "nvidia": rf"nvapi-{_URL_SAFE}{{60,}}",
    # https://docs.langchain.com/langsmith/create-account-api-key
    "langsmith": r"lsv2_[a-z]{2}_[0-9a-f]{32}_[0-9a-f]{10,}",
    # https://docs.pinecone.io/guides/projects/manage-api-keys
    "pinecone": r"pcsk_[0-9A-Za-z]{4,8}_[0-9A-Za-z]{50,}",
    # https://docs.tavily.com/documentation/quickstart
    "tavily": rf"tvly-(?:(?:dev|prod)-)?{_URL_SAFE}{{32,}}",
    # https://docs.firecrawl.dev/introduction
    "firecrawl": r"fc-[0-9a-f]{32,}",
    # https://jina.ai/reader/
    "jina": rf"jina_[0-9a-f]{{32}}{_URL_SAFE}{{28,}}",
    # https://docs.cloud.llamaindex.ai/api_key
    "llama-cloud": r"llx-[0-9A-Za-z]{48,}",
    # https://e2b.dev/docs/api-key
    "e2b": r"e2b_[0-9a-f]{40,}",
    # https://docs.together.ai/docs/api-keys-authentication
    "together": rf"tgp_v1_{_URL_SAFE}{{40,}}",
    # https://context7.com/docs/howto/api-keys
    "context7": rf"ctx7sk-{_UUID}",
    # https://docs.databricks.com/aws/en/dev-tools/auth/pat
    "databricks": rf"(?P<value>(?:dapi|dose)[0-9a-f]{{32}}(?:-[0-9]+)?){_END}",
    # --- data and applications ---
    # https://supabase.com/docs/guides/api/api-keys
    "supabase": r"(?:(?:)sbp_(?:v0_)?[0-9a-f]{40,}|(?:)sb_secret_[0-9A-Za-z_-]{31,})",
    # https://planetscale.com/docs/api/reference/service-tokens
    "planetscale": r"pscale_[a-z]{2,5}_[0-9A-Za-z_.=-]{32,}",
    # https://neon.com/docs/manage/api-keys
    "neon": r"napi_[0-9a-z]{60,}",
    "neon-password": rf"(?P<value>npg_[0-9A-Za-z]{{12}}){_END}",
    # https://www.contentful.com/developers/docs/references/authentication/
    "contentful": rf"CFPAT-{_URL_SAFE}{{43,}}",
    # https://linear.app/developers/graphql
    "linear": r"lin_(?:api|oauth)_[0-9A-Za-z]{40,}",
    # https://developers.notion.com/page/changelog (token format of 2024-09-25)
    "notion": r"ntn_[0-9]{11}[0-9A-Za-z]{35,}",
    "notion-before-2024": r"secret_[0-9A-Za-z]{43,}",
    # https://airtable.com/developers/web/guides/personal-access-tokens
    "airtable": r"pat[0-9A-Za-z]{14}\.[0-9a-f]{64,}",
    # https://developers.figma.com/docs/rest-api/authentication/
    "figma": rf"fig[dor]h?_{_URL_SAFE}{{40,}}",
    # https://developers.dropbox.com/oauth-guide
    "dropbox": rf"sl\.(?:u\.)?{_URL_SAFE}{{100,}}",
    # https://learning.postman.com/docs/developer/postman-api/authentication/
    "postman": r"PMAK-[0-9a-f]{24}-[0-9a-f]{34,}",
    # https://developers.hubspot.com/docs/api/private-apps
    "hubspot": rf"pat-[a-z]{{2}}[0-9]-{_UUID}",
    # https://www.typeform.com/developers/get-started/personal-access-token/
    "typeform": r"tfp_[0-9A-Za-z_=.-]{40,}",
    # https://developer.frame.io/docs/getting-started/authentication
    "frame-io": rf"fio-u-{_URL_SAFE}{{64,}}",
    # https://docs.mapbox.com/api/guides/#access-tokens-and-token-scopes
    "mapbox-secret": r"sk\.eyJ[0-9A-Za-z_-]{40,}\.[0-9A-Za-z_-]{20,}",
    # https://dev.maxmind.com/geoip/geolocate-an-ip/web-services/ (license keys)
    "maxmind": rf"(?P<value>[0-9A-Za-z]{{6}}_[0-9A-Za-z]{{29}}_mmk){_END}",
    # --- messages ---
    # https://api.slack.com/authentication/token-types
    "slack": r"xox[abceoprs](?:\.xox[bp])?-[0-9A-Za-z-]{10,}",
    "slack-app": r"xapp-[0-9]-[0-9A-Za-z-]{10,}",
    "slack-workflow": r"xwfp-[0-9A-Za-z-]{10,}",
    # Of the web client, as it stands in the cookie.
    "slack-cookie": r"xoxd-[0-9A-Za-z%+/_-]{20,}={0,2}",
    # https://api.slack.com/messaging/webhooks
    "slack-webhook": (
        r"hooks\.slack\.com/(?:services|workflows|triggers)/(?P<value>T[0-9A-Z]{6,}/[0-9A-Za-z/]{20,})"
    ),
    # https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/add-incoming-webhook
    "teams-webhook": (
        rf"webhook\.office\.com/webhookb2/(?P<value>{_UUID}@{_UUID}/IncomingWebhook/"
        rf"[0-9a-f]{{32}}/{_UUID}(?:/[0-9A-Za-z_-]+)?)"
    ),
    # https://discord.com/developers/docs/resources/webhook
    "discord-webhook": (
        rf"discord(?:app)?\.com/api/webhooks/(?P<value>[0-9]{{17,20}}/{_URL_SAFE}{{60,}})"
    ),
    # https://core.telegram.org/bots/api#making-requests
    "telegram-url": rf"api\.telegram\.org/(?:file/)?bot(?P<value>[0-9]{{6,12}}:{_URL_SAFE}{{35,}})",
    # https://www.twilio.com/docs/sendgrid/ui/account-and-settings/api-keys
    "sendgrid": r"SG\.[0-9A-Za-z_-]{22}\.[0-9A-Za-z_-]{43,}",
    # https://www.twilio.com/docs/iam/api-keys
    "twilio-api-key": rf"(?P<value>SK[0-9a-f]{{32}}){_END}",
    # https://documentation.mailgun.com/docs/mailgun/user-manual/api-key-mgmt/rbac-mgmt
    "mailgun": rf"(?P<value>key-[0-9a-f]{{32}}){_END}",
    # https://mailchimp.com/developer/marketing/docs/fundamentals/
    "mailchimp": rf"(?P<value>[0-9a-f]{{32}}-us[0-9]{{1,2}}){_END}",
    # https://mailchimp.com/developer/transactional/docs/fundamentals/
    "mandrill": rf"(?P<value>md-{_URL_SAFE}{{22}}){_END}",
    # https://developers.brevo.com/docs/getting-started
    "brevo": r"(?:xkeysib|xsmtpsib)-[0-9a-f]{64}-[0-9A-Za-z]{16,}",
    # https://developers.mailersend.com/general.html#authentication
    "mailersend": r"mlsn\.[0-9a-f]{64,}",
    # https://resend.com/docs/dashboard/api-keys/introduction
    "resend": r"re_[0-9A-Za-z]{8}_[0-9A-Za-z]{20,}",
    # https://developers.facebook.com/docs/facebook-login/guides/access-tokens
    "meta": r"EAA[0-9A-Za-z]{100,}",
    # --- payments and trade ---
    # https://docs.stripe.com/keys
    "stripe": r"(?:sk|rk)_(?:live|test|org_live|org_test)_[0-9A-Za-z]{16,}",
    # https://docs.stripe.com/webhooks#verify-events
    "stripe-webhook": r"whsec_[0-9A-Za-z+/]{24,}={0,2}",
    # https://developer.squareup.com/docs/build-basics/access-tokens
    "square": r"(?:sq0(?:atp|csp|idp)-[0-9A-Za-z_-]{22,}|EAAA[0-9A-Za-z_-]{60,})",
    # https://developer.paypal.com/braintree/docs/guides/extend/oauth/access-tokens
    "braintree": r"access_token\$(?:production|sandbox)\$[0-9a-z]{16}\$[0-9a-f]{32,}",
    # https://shopify.dev/changelog/app-secret-key-length-has-increased
    "shopify": r"shp(?:at|ca|pa|ss|ua|tka)_[0-9a-fA-F]{32,}",
    # https://plaid.com/docs/quickstart/glossary/#access-token
    "plaid": rf"access-(?:sandbox|development|production)-{_UUID}",
    # https://developer.flutterwave.com/docs/authentication
    "flutterwave": r"FLWSECK(?:_TEST)?-[0-9a-zA-Z]{32,}-X",
    # https://docs.goshippo.com/docs/guides_general/authentication/
    "shippo": r"shippo_(?:live|test)_[0-9a-f]{40,}",
    # https://docs.easypost.com/docs/authentication
    "easypost": r"EZ[AT]K[0-9A-Za-z]{54,}",
    # https://docs.lob.com/#tag/Authentication
    "lob": rf"(?P<value>(?:live|test)_[0-9a-f]{{35}}){_END}",
    # https://duffel.com/docs/api/overview/test-mode
    "duffel": rf"duffel_(?:live|test)_{_URL_SAFE}{{43,}}",
}

_HEX_32, _HEX_40, _HEX_64 = (f"[0-9a-f]{{{length}}}" for length in (32, 40, 64))

# Name → pattern, and the words one of which stands near.
WEAK_TOKENS: dict[str, tuple[str, tuple[str, ...]]] = {
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_access-keys.html
    "aws-secret-access-key": (
        r"[0-9A-Za-z/+]{40}",
        ("aws secret", "aws secret access key", "secret access key", "aws secret key"),
    ),
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_temp_use-resources.html
    "aws-session-token": (
        r"[0-9A-Za-z/+]{100,}={0,2}",
        ("aws session token", "session token", "amz security token", "security token"),
    ),
    # https://discord.com/developers/docs/reference#authentication
    "discord-bot": (
        r"[MNO][0-9A-Za-z_-]{23,27}\.[0-9A-Za-z_-]{6}\.[0-9A-Za-z_-]{27,}",
        ("discord", "bot", "bot token", "discord token"),
    ),
    # https://core.telegram.org/bots/api#authorizing-your-bot
    "telegram-bot": (r"[0-9]{6,12}:[0-9A-Za-z_-]{35}", ("telegram", "bot", "bot token")),
    # https://docs.datadoghq.com/account_management/api-app-keys/
    "datadog-api-key": (_HEX_32, ("datadog api key", "dd api key", "datadog key")),
    "datadog-application-key": (
        _HEX_40,
        ("datadog app key", "datadog application key", "dd app key", "dd application key"),
    ),
    # https://www.twilio.com/docs/iam/api/authtoken
    "twilio-auth-token": (_HEX_32, ("twilio auth token", "twilio token", "twilio")),
    # https://www.assemblyai.com/docs/api-reference/overview
    "assemblyai": (_HEX_32, ("assemblyai api key", "assemblyai key")),
    # https://learn.microsoft.com/azure/ai-services/authentication
    "azure-subscription-key": (
        _HEX_32,
        ("ocp apim subscription key", "azure openai api key", "bing search v7 subscription key"),
    ),
    # https://docs.wandb.ai/models/ref/python/functions/login
    "wandb": (_HEX_40, ("wandb api key", "wandb key", "wandb login")),
    # https://developers.deepgram.com/docs/create-additional-api-keys
    "deepgram": (_HEX_40, ("deepgram api key", "deepgram key")),
    # https://serper.dev
    "serper": (_HEX_40, ("serper api key", "serper key")),
    # https://serpapi.com/search-api
    "serpapi": (_HEX_64, ("serpapi api key", "serpapi key", "serpapi")),
    # https://docs.together.ai/docs/quickstart
    "together-before-2025": (_HEX_64, ("together api key", "together key")),
    # https://techdocs.akamai.com/linode-api/reference/get-started
    "linode": (_HEX_64, ("linode token", "linode api token", "linode cli token")),
    # https://docs.virustotal.com/reference/authentication
    "virustotal": (_HEX_64, ("virustotal api key", "virustotal key", "vt api key", "x apikey")),
    # https://developers.asana.com/docs/personal-access-token
    "asana": (r"[0-9]/[0-9]{10,}(?:/[0-9]{10,})?:[0-9a-f]{32}", ("asana", "asana access token")),
    # https://launchdarkly.com/docs/home/account/api
    "launchdarkly-api": (rf"api-{_UUID}", ("launchdarkly", "ld access token")),
    # https://docs.snyk.io/snyk-api/authentication-for-api
    "snyk": (_UUID, ("snyk token", "snyk api token", "snyk api key")),
    # https://postmarkapp.com/developer/api/overview
    "postmark": (_UUID, ("postmark server token", "postmark account token", "postmark api token")),
    # https://developers.deepl.com/docs/getting-started/auth
    "deepl": (rf"{_UUID}(?::fx)?", ("deepl auth key", "deepl api key", "deepl key")),
    # https://help.splunk.com (HTTP event collector tokens)
    "splunk-hec": (
        _UUID,
        ("splunk hec token", "splunk token", "hec token", "authorization splunk"),
    ),
    # https://ngrok.com/docs/agent/#authtokens
    "ngrok": (r"[0-9A-Za-z]{27}_[0-9A-Za-z]{20,21}", ("ngrok", "ngrok authtoken", "ngrok api key")),
    # https://developers.cloudflare.com/fundamentals/api/get-started/token-formats (before 2026)
    "cloudflare-before-2026": (
        r"[0-9A-Za-z_-]{40}",
        ("cloudflare api token", "cloudflare token", "cf api token", "cloudflare"),
    ),
    # https://docs.hetzner.cloud/reference/cloud#authentication
    "hetzner": (r"[0-9A-Za-z]{64}", ("hcloud token", "hetzner token", "hetzner api token")),
    # https://api-dashboard.search.brave.com/app/documentation/web-search/get-started
    "brave-search": (
        r"BSA[0-9A-Za-z_-]{27,28}",
        ("brave", "brave search api key", "brave api key", "x subscription token"),
    ),
    # https://docs.cohere.com/reference/about
    "cohere": (r"[0-9A-Za-z]{40}", ("cohere api key", "co api key", "cohere key")),
    # https://docs.mistral.ai/getting-started/quickstart
    "mistral": (r"[0-9A-Za-z]{32}", ("mistral api key", "mistral key")),
}

# Formats that a long name in a program could have, too, if it had no digit.
_WITH_DIGIT = frozenset(
    {"fireworks", "notion-before-2024", "octopus", "render", "resend", "vercel"}
)
_BEFORE = r"(?:^|[^0-9A-Za-z])"
_BEFORE_WEAK = r"(?:^|[^0-9A-Za-z+/_-])"
_BEFORE_CHECKED = r"(?:^|[^0-9A-Za-z_-])"
_END_WEAK = r"(?:$|[^0-9A-Za-z+/_=-])"
_DIGIT, _SMALL, _CAPITAL = re.compile("[0-9]"), re.compile("[a-z]"), re.compile("[A-Z]")


def token_shapes() -> tuple[Shape, ...]:
    """Return one shape for each strong format, and one for all weak formats of the same pattern."""
    strong = tuple(
        Shape(
            # What is checked must not be found again inside what the check refused.
            pattern=(_BEFORE_CHECKED if _check(name) else _BEFORE)
            + (pattern if "(?P<value>" in pattern else f"(?P<value>{pattern})"),
            narrow=_check(name),
        )
        for name, pattern in TOKENS.items()
    )
    words: dict[str, list[str]] = {}
    for pattern, near in WEAK_TOKENS.values():
        words.setdefault(pattern, []).extend(near)
    weak = tuple(
        Shape(
            pattern=f"{_BEFORE_WEAK}(?P<value>{pattern}){_END_WEAK}",
            # A digest may be as long as a token, but has no capitals.
            narrow=whole(_is_mixed if "A-Z" in pattern else _has_digit_and_letter),
            near=tuple(near),
        )
        for pattern, near in words.items()
    )
    return strong + weak


def _check(name: str) -> Callable[[str], Span | None] | None:
    if name == "model-api":
        return whole(_is_model_key)
    return whole(_has_digit) if name in _WITH_DIGIT else None


def _has_digit(text: str) -> bool:
    return _DIGIT.search(text) is not None


def _has_digit_and_letter(text: str) -> bool:
    return _has_digit(text) and _SMALL.search(text) is not None


def _is_mixed(text: str) -> bool:
    return _has_digit_and_letter(text) and _CAPITAL.search(text) is not None


def _is_model_key(text: str) -> bool:
    # `sk-` is short enough to begin the name of something: `sk-learn-pipeline-2024`.
    rest = text.removeprefix("sk-")
    return looks_random(rest) or (rest.isalnum() and _has_digit(rest))
